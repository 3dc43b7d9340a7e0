import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { test } from "node:test";

const read = (path) => readFile(new URL(`../../notifier/${path}`, import.meta.url), "utf8");

test("the package has Notifier's version and every file that it names", async () => {
  const client = await import("../../notifier/client/js/client.js");
  const { version, files, exports } = JSON.parse(await read("client/js/package.json"));
  assert.equal(version, /__version__ = "(.+)"/.exec(await read("__init__.py"))[1]);
  assert.equal(client.version, version);
  assert.deepEqual(Object.values(exports).map((path) => path.slice(2)).sort(), files.sort());
  for (const file of files) assert.ok(await read(`client/js/${file}`));
});
