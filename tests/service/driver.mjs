// A program with the JavaScript client: commands on standard input, reports on standard output, one JSON object per
// line. driver.py is the same with the Python client. The third argument has further options of `connect`, as JSON.

import { createInterface } from "node:readline";

import { connect } from "../../clients/js/src/client.js";

const [, , url, given, more = "{}"] = process.argv;
const print = (report) => console.log(JSON.stringify(report));
const subscriptions = new Map();
let token = given;
let tokens = 0;

let client;
client = connect({
  url,
  getToken: () => (tokens++, token),
  minDelayMs: 100,
  ...JSON.parse(more),
  onMessage: ({ Type, Data, Position }) => print({ company: Data.CompanyId, kind: "message", type: Type, position: Position }),
  onRecovered: ({ companyId, position }) => print({ company: companyId, kind: "recovered", position }),
  onSkipped: ({ companyId, position }) => print({ company: companyId, kind: "skipped", position }),
  onResync: ({ companyId, reason, position }) => print({ company: companyId, kind: "resync", reason, position }),
  onState: ({ companyId, reason, position }) => print({ company: companyId, kind: "state", reason, position }),
  onStatus: ({ companyId, state, reason }) =>
    print({ company: companyId, kind: "status", state, reason: reason ?? null, transport: client?.transport ?? null }),
});

for await (const line of createInterface({ input: process.stdin })) {
  const { verb, company, ...options } = JSON.parse(line);
  const subscription = subscriptions.get(company);
  if (verb === "subscribe") subscriptions.set(company, client.subscribe(company, options));
  else if (verb === "unsubscribe") subscription.unsubscribe();
  else if (verb === "filter") subscription.setFilter(options);
  else if (verb === "token") token = options.token;
  else if (verb === "snapshot") print({ company, kind: "snapshot", snapshot: subscription.snapshot(), tokens });
  else {
    subscription.arrived(options.tx).then(
      (position) => print({ company, kind: "arrived", position }),
      (error) => print({ company, kind: "failed", code: error.code }),
    );
  }
}
client.close();
