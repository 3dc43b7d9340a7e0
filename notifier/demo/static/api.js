/** The demo's application API. It writes to the database and knows nothing of Notifier. */

async function request(path, options = {}) {
  const response = await fetch(`demo/${path}`, options);
  if (response.ok) return response;
  const { Error: error } = await response.json().catch(() => ({}));
  throw new Error(error?.Message ?? `The demo answered with status ${response.status}.`);
}

/** Writes a row; answers with its `Id` and the number of the transaction, `Tx`. */
const write = (method) => async (path, actor, values) => {
  const headers = { "Content-Type": "application/json", "X-Actor": actor ?? "" };
  return (await request(path, { method, headers, body: JSON.stringify(values) })).json();
};

export const create = write("POST");
export const change = write("PATCH");
export const remove = write("DELETE");

/** All companies. What is in them comes from Notifier. */
export async function companies(signal) {
  return (await request("companies", { signal })).json();
}

export async function token(user) {
  return (await request(`token?user=${encodeURIComponent(user)}`)).text();
}
