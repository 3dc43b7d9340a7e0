import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { test } from "node:test";

const read = (path) => readFile(new URL(`../../${path}`, import.meta.url), "utf8");

test("the package has Notifier's version and every file that it names", async () => {
  const client = await import("../../clients/js/src/client.js");
  const { version, exports } = JSON.parse(await read("clients/js/package.json"));
  assert.equal(version, /__version__ = "(.+)"/.exec(await read("notifier/__init__.py"))[1]);
  assert.equal(client.version, version);
  for (const entry of Object.values(exports)) {
    for (const path of typeof entry === "string" ? [entry] : Object.values(entry)) assert.ok(await read(`clients/js/${path}`));
  }
});

test("the lock file has names, versions and hashes, and no address", async () => {
  const lock = JSON.parse(await read("clients/js/package-lock.json"));
  assert.doesNotMatch(JSON.stringify(lock), /https?:|"resolved"/);
  const packages = Object.entries(lock.packages).filter(([name]) => name);
  assert.deepEqual(packages.filter(([, { integrity }]) => !integrity), []);
});
