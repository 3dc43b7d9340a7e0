/** The demo's app: it writes to the database and knows nothing of the notifier. */

async function ask(path, options = {}) {
  const response = await fetch(`/demo/${path}`, options);
  if (response.ok) return response;
  const { Error: error } = await response.json().catch(() => ({}));
  throw new Error(error?.Message ?? `The demo answers with status ${response.status}.`);
}

const write = (method) => (path, actor, values) =>
  ask(path, { method, headers: { "Content-Type": "application/json", "X-Actor": actor ?? "" }, body: JSON.stringify(values) });

export const create = write("POST");
export const change = write("PATCH");
export const remove = write("DELETE");

/** All companies, and the rows of one, or of the first. */
export async function state(company, signal) {
  return (await ask(`state${company ? `?company=${encodeURIComponent(company)}` : ""}`, { signal })).json();
}

export async function token(user) {
  return (await ask(`token?user=${encodeURIComponent(user)}`)).text();
}
