"""The companies on one socket: commands, answers and messages."""

from __future__ import annotations

from collections.abc import Callable

from notifier.client.closes import Disconnected
from notifier.client.deadlines import Deadlines
from notifier.client.feed import Arrival, Feed, Feeds, Filter, Incoming, Request
from notifier.client.inbox import Inbox
from notifier.client.progress import Gap, Unreadable, nested, same_company
from notifier.client.reports import Resync, Row, State, Status

MAX_AWAITED = 100
"""A socket waits for at most this many transactions; further ones are sent when others have arrived."""

MAX_STATE_BYTES = 64 * 1024 * 1024
"""A state with more is refused. The server sends at most half of it."""

ID_LENGTH = 250
"""Characters of the longest id of a company, in whatever spelling."""

REFUSED = frozenset(
    {
        "company_forbidden",
        "bad_filter",
        "too_many_companies",
        "state_too_large",
        "state_unavailable",
    }
)
"""The application has to act before the company is requested again."""


class Companies:
    """Requests each company, reports its messages, and sends an `await` for each write.

    Messages with a wrong position or content raise Disconnected where the connection is of no use any more.
    """

    def __init__(
        self, feeds: Feeds, inbox: Inbox, *, deadlines: Deadlines, send: Callable[[Row], None]
    ) -> None:
        self._feeds = feeds
        self._inbox = inbox
        self._deadlines = deadlines
        self._send = send
        self._requests: list[Request] = []  # the server answers in this order
        self._requested: set[str] = set()  # with several, each message has to name its company

    @property
    def awaits_answer(self) -> bool:
        """Whether the server owes an answer."""
        return bool(self._requests)

    def open(self) -> None:
        """The server has authenticated the user: requests all companies."""
        self._feeds.is_open = True
        for feed in self._feeds:
            self._subscribe(feed)
        if not self._feeds:
            self._report_no_company()

    def end(self) -> None:
        """The connection has ended."""
        for feed in self._feeds:
            feed.disconnect()

    def subscribe(self, feed: Feed) -> None:
        """Requests a feed's company, now or as soon as the server can answer."""
        if feed.request is not None:
            feed.request.outdated = True  # repeated when the answer is there
        elif self._feeds.is_open:
            self._subscribe(feed)

    def unsubscribe(self, feed: Feed) -> None:
        """Leaves a feed's company. Nothing waits for the answer."""
        if feed.requested is not None:
            self._send({"type": "unsubscribe", "data": {"companyId": feed.requested}})
            feed.requested = None
        if not self._feeds and self._feeds.is_open:
            self._report_no_company()

    def await_transactions(self) -> None:
        """Sends an `await` for each transaction that the application waits for, as far as is allowed."""
        room = MAX_AWAITED - sum(len(feed.sent) for feed in self._feeds)
        for feed in self._feeds:
            if not feed.subscribed or feed.incoming is not None:
                continue
            for tx in feed.unsent()[: max(0, room)]:
                self._send({"type": "await", "data": {"companyId": feed.company, "tx": tx}})
                feed.sent.add(tx)
                room -= 1

    def refuse_first(self) -> bool:
        """The close was the answer to the first request. Returns whether no other company can be requested."""
        if self._requests:
            self._requests[0].feed.block("company_forbidden")
            return all(feed.progress.blocked for feed in self._feeds)
        return True

    def count_failure(self) -> None:
        """A message could not be read: it may be one of any company."""
        for feed in self._feeds:
            if feed.subscribed:
                feed.progress.count_failure()

    def receive(self, message: Row, frame: str | bytes) -> None:
        """Takes a message about a company; another one is of a later protocol and may be ignored."""
        match message.get("Type"):
            case "SetCompanyResult":
                self._answered("setCompany", message)
            case "SubscribeResult":
                self._answered("subscribe", message)
            case "CompanyRevoked":
                self._revoked(message)
            case "State":
                self._receive_rows(message, len(frame))
            case "StateEnd":
                self._end_state(message)
            case "Arrived":
                self._arrived(message)
            case "Error":
                self._not_arrived(message)
            case _ if "Position" in message:
                self._changed(message, frame if isinstance(frame, str) else frame.decode())

    def _subscribe(self, feed: Feed) -> None:
        progress, company = feed.progress, feed.progress.company
        assert company is not None, "a feed has a company"
        if progress.blocked is not None:
            self._deadlines.expect_to_last()
            self._report(feed, "idle", progress.blocked)
            return
        is_alone = feed is self._feeds.main and len(self._feeds) == 1 and feed.filter == Filter()
        is_alone = is_alone and feed.store is None  # `setCompany` has no state
        feed.incoming = None
        data = progress.request()
        if feed.accepted in (None, feed.filter):
            feed.subscribed = False
        else:
            # Another filter begins at the present position, with a resync. Until it is accepted the
            # server goes on with the former one.
            data = {"companyId": company}
        if feed.requested not in (None, company) and not is_alone:
            self.unsubscribe(feed)
        feed.request = Request(
            feed,
            "setCompany" if is_alone else "subscribe",
            company,
            None if "after" not in data else progress.head,
            feed.filter,
            replaces=feed.subscribed,
        )
        feed.requested = company
        feed.sent.clear()
        self._requests.append(feed.request)
        if is_alone:  # the server leaves all others
            self._requested.clear()
        self._requested.add(company)
        state = {} if feed.store is None else {"state": True}
        self._send({"type": feed.request.command, "data": data | feed.filter.request() | state})
        self._deadlines.expect_result()
        if feed.status.state != "connecting":
            self._report(feed, "connecting")

    def _answered(self, command: str, message: Row) -> None:
        """Takes the answer to `setCompany` or `subscribe`."""
        success, data = bool(message.get("Success")), nested(message, "Data")
        request = self._request_of(command, data.get("CompanyId"), success=success)
        if request is None:
            return
        self._requests.remove(request)
        if self._requests:
            self._deadlines.expect_result()
        else:
            self._deadlines.end_wait()
        feed = request.feed
        if feed.is_closed:
            return
        feed.request = None
        if request.outdated:
            feed.subscribed = False
            self._subscribe(feed)
            return
        if not success:
            self._refused(request, nested(message, "Error"))
            return
        start = "start" if feed.accepted is None or feed.accepted == feed.filter else "filter"
        start = feed.reason or start
        try:
            report = feed.progress.acknowledge(request.company, request.head, data, start)
        except Unreadable as error:
            raise Disconnected("unreadable message") from error
        feed.accepted, feed.subscribed = request.filter, True
        self._feeds.rename(feed, data.get("CompanyId"))
        self._deadlines.expect_to_last()
        if feed.store is not None and isinstance(report, Resync):
            # No position before the last row: if the connection ends, the state is requested again.
            feed.incoming = Incoming(report, feed.progress.head, request.filter)
            feed.progress.head, feed.reason = None, report.reason
            return
        self._report(feed, "live")
        self._inbox.put(feed, report)
        self.await_transactions()

    def _receive_rows(self, message: Row, size: int) -> None:
        """Takes a `State`."""
        feed, data = self._feed_of(message), nested(message, "Data")
        if feed is None or not feed.subscribed:
            return
        if feed.incoming is None:
            raise Disconnected("unreadable message")
        feed.incoming.size += size
        if feed.incoming.size > MAX_STATE_BYTES:
            self.unsubscribe(feed)
            feed.incoming = None
            feed.block("state_too_large")
            self._report(feed, "idle", "state_too_large")
            return
        feed.incoming.rows.setdefault(data["Entity"], []).extend(data["Rows"])

    def _end_state(self, message: Row) -> None:
        """Takes a `StateEnd`: the rows are complete."""
        feed = self._feed_of(message)
        if feed is None or not feed.subscribed:
            return
        incoming = feed.incoming
        if incoming is None or nested(message, "Data").get("Position") != incoming.answer.position:
            raise Disconnected("unreadable message")
        feed.progress.head, feed.incoming, feed.reason = incoming.head, None, None
        self._report(feed, "live")
        self._inbox.put(feed, incoming.complete())
        self.await_transactions()

    def _request_of(self, command: str, company: object, *, success: bool) -> Request | None:
        """The request that an answer belongs to. The server answers in order, as long as nothing is lost."""
        for request in self._requests:
            if request.command == command and (
                same_company(request.company, company) or (company is None and not success)
            ):
                return request
        return None

    def _refused(self, request: Request, error: Row) -> None:
        feed, reason = request.feed, error.get("Code")
        if reason not in REFUSED:
            raise Disconnected(reason or "unreadable message", error=error)
        self._deadlines.expect_to_last()
        if reason == "bad_filter" and feed.accepted not in (None, feed.filter):
            feed.filter = feed.accepted or Filter()
            if request.replaces:
                self._report(feed, "live", reason, error=error)
                self.await_transactions()
            else:
                self._report(feed, "connecting", reason, error=error)
                self._subscribe(feed)
            return
        if feed.accepted is not None:  # the server would go on with what it accepted before
            self.unsubscribe(feed)
        feed.block(reason)
        self._report(feed, "idle", reason, error=error)

    def _feed_of(self, message: Row) -> Feed | None:
        """The feed that a message belongs to. Raises Disconnected if it cannot be determined.

        `case` and `rename` in notifier.toml may spell `CompanyId` otherwise. Its value is in the row all
        the same: if it has that of only one company, the message is of this one.
        """
        if len(self._requested) <= 1:
            return next((feed for feed in self._feeds if feed.requested is not None), None)
        data = nested(message, "Data")
        company = data.get("CompanyId", data.get("companyId"))
        if company is None:
            ids = [value for value in data.values() if _may_be_id(value)]
            named = [
                name for name in self._requested if any(same_company(name, value) for value in ids)
            ]
            if len(named) != 1:
                raise Disconnected("unreadable message")
            company = named[0]
        return self._feeds.find(company)

    def _revoked(self, message: Row) -> None:
        """Takes a `CompanyRevoked`: the other companies go on."""
        feed = self._feeds.find(nested(message, "Data").get("CompanyId"))
        if feed is not None and feed.request is None:
            feed.requested = None
            feed.block("revoked")
            self._report(feed, "idle", "revoked")

    def _changed(self, message: Row, text: str) -> None:
        """Takes a message with a position, which was received as `text`."""
        feed = self._feed_of(message)
        if feed is None or not feed.subscribed:
            return  # of a company that was left, or after a gap that was requested again
        if feed.incoming is not None:
            raise Disconnected("unreadable message")
        try:
            report = feed.progress.accept(message, text)
        except Unreadable as error:
            raise Disconnected("unreadable message") from error
        except Gap:
            feed.subscribed = False
            self.subscribe(feed)
            return
        if isinstance(report, Resync) and feed.store is not None:
            feed.progress.head, feed.reason = None, report.reason
            feed.subscribed = False
            self.subscribe(feed)
        elif report is not None:
            self._inbox.put(feed, report)

    def _arrived(self, message: Row) -> None:
        """Takes an `Arrived`."""
        data = nested(message, "Data")
        feed, tx, position = self._feed_of(message), data.get("Tx"), data.get("Position")
        if feed is not None and tx in feed.sent and isinstance(position, int):
            feed.sent.discard(tx)
            feed.arrived.add(tx)
            self._inbox.put(feed, Arrival(tx, position))
            self.await_transactions()

    def _not_arrived(self, message: Row) -> None:
        """Takes an `Error` that answers an `await`."""
        feed, tx = self._feed_of(message), nested(message, "Data").get("Tx")
        if feed is not None and tx in feed.sent:
            error = nested(message, "Error")
            feed.reject(tx, error.get("Code", ""), error.get("Message", ""))
            self.await_transactions()

    def _report(
        self, feed: Feed, state: State, reason: str | None = None, *, error: object = None
    ) -> None:
        self._inbox.put(feed, feed.set_status(state, reason=reason, error=error))

    def _report_no_company(self) -> None:
        self._deadlines.expect_to_last()
        self._feeds.connection = Status(state="idle", company=None, reason="no company")
        self._inbox.put(None, self._feeds.connection)


def _may_be_id(value: object) -> bool:
    """Whether the value of a column may be the id of a company: an array, an object or a long text is none."""
    if isinstance(value, str):
        return len(value) <= ID_LENGTH
    return isinstance(value, int | float)
