import { NotifierProvider, useRows, useStatus } from "postgres-notifier/react";
import { StrictMode } from "react";
import { createRoot } from "react-dom/client";

const given = new URLSearchParams(location.search); // ?url=ws://localhost:8181/&company=…&token=…
const text = (name: string) => given.get(name) ?? "";

function Events() {
  const events = useRows("Event").toSorted((one, other) => one.StartsAt.localeCompare(other.StartsAt));
  const { state, transport, reason } = useStatus();
  return (
    <main>
      <p role="status">{[state, transport, reason].filter(Boolean).join(" · ")}</p>
      <ul>
        {events.map(({ EventId, Title, StartsAt }) => (
          <li key={EventId}>
            {new Date(StartsAt).toLocaleString()} {Title}
          </li>
        ))}
      </ul>
    </main>
  );
}

createRoot(document.getElementById("root")!).render(
  <StrictMode>
    <NotifierProvider url={text("url")} getToken={() => text("token")} companyId={text("company")} state>
      <Events />
    </NotifierProvider>
  </StrictMode>,
);
