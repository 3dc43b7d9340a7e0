// A program with the JavaScript client: commands on standard input, reports on standard output, one JSON object per
// line. driver.py is the same with the Python client.

import { createInterface } from "node:readline";

import { connect } from "../../notifier/client/js/client.js";

const [, , url, token] = process.argv;
const print = (report) => console.log(JSON.stringify(report));
const subscriptions = new Map();

const client = connect({
  url,
  getToken: () => token,
  minDelayMs: 100,
  onMessage: ({ Type, Data, Position }) => print({ company: Data.CompanyId, kind: "message", type: Type, position: Position }),
  onRecovered: ({ companyId, position }) => print({ company: companyId, kind: "recovered", position }),
  onSkipped: ({ companyId, position }) => print({ company: companyId, kind: "skipped", position }),
  onResync: ({ companyId, reason, position }) => print({ company: companyId, kind: "resync", reason, position }),
  onStatus: ({ companyId, state, reason }) => print({ company: companyId, kind: "status", state, reason: reason ?? null }),
});

for await (const line of createInterface({ input: process.stdin })) {
  const { verb, company, ...options } = JSON.parse(line);
  const subscription = subscriptions.get(company);
  if (verb === "subscribe") subscriptions.set(company, client.subscribe(company, options));
  else if (verb === "unsubscribe") subscription.unsubscribe();
  else if (verb === "filter") subscription.setFilter(options);
  else {
    subscription.arrived(options.tx).then(
      (position) => print({ company, kind: "arrived", position }),
      (error) => print({ company, kind: "failed", code: error.code }),
    );
  }
}
client.close();
