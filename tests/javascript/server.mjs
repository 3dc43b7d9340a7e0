// The React binding on a server, which has no effects and no connection: run by test_package.py.

import assert from "node:assert/strict";
import { createElement as h, Suspense } from "react";
import { renderToString } from "react-dom/server";
import { NotifierProvider, useNotifier, useRows, useStatus, useSuspenseRows } from "postgres-notifier/react";

globalThis.WebSocket = globalThis.fetch = () => assert.fail("a server must not connect");

function Events() {
  useNotifier({ onMessage() {} });
  return `${useRows("Event").length} ${useStatus().state}`;
}

function Suspended() {
  return useSuspenseRows("Event").length;
}

const page = renderToString(
  h(
    NotifierProvider,
    { url: "/realtime/", getToken: () => assert.fail("a server must not fetch a token"), companyId: "acme", state: true },
    h("p", null, h(Events)),
    h(Suspense, { fallback: h("i", null, "loading") }, h(Suspended)),
  ),
);
assert.match(page, /<p>0 connecting<\/p>/);
assert.match(page, /<i>loading<\/i>/);
