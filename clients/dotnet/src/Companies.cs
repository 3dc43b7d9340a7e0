using System;
using System.Collections.Generic;
using System.Globalization;
using System.Linq;

namespace Notifier.Client
{
    /// <summary>
    /// The companies on one socket: commands, answers and messages. Its methods are called under the gate, and throw
    /// Disconnected where the connection is of no use any more.
    /// </summary>
    internal sealed class Companies
    {
        /// <summary>A socket waits for at most this many transactions; further ones are sent when others have arrived.</summary>
        const int MaxAwaited = 100;

        static readonly HashSet<string> Refusals = new HashSet<string> { "company_forbidden", "bad_filter", "too_many_companies" };

        readonly Feeds feeds;
        readonly Dispatcher dispatcher;
        readonly Deadlines deadlines;
        readonly Action<string, Dictionary<string, object>> send;
        readonly List<Request> requests = new List<Request>(); // the server answers in this order
        readonly HashSet<string> requested = new HashSet<string>(); // with several, each message has to name its company
        bool isOpen;

        public Companies(Feeds feeds, Dispatcher dispatcher, Deadlines deadlines, Action<string, Dictionary<string, object>> send)
        {
            this.feeds = feeds;
            this.dispatcher = dispatcher;
            this.deadlines = deadlines;
            this.send = send;
        }

        /// <summary>The server owes an answer.</summary>
        public bool AwaitsAnswer => requests.Count > 0;

        /// <summary>The server has authenticated the user: requests all companies.</summary>
        public void Open()
        {
            isOpen = true;
            feeds.IsOpen = true;
            foreach (Feed feed in feeds.ToList()) Request(feed);
            if (feeds.Count == 0) ReportNoCompany();
        }

        /// <summary>The connection has ended.</summary>
        public void End()
        {
            isOpen = false;
            foreach (Feed feed in feeds) feed.Disconnect();
        }

        /// <summary>Requests a feed's company, now or as soon as the server can answer.</summary>
        public void Subscribe(Feed feed)
        {
            if (feed.Request != null) feed.Request.IsOutdated = true; // repeated when the answer is there
            else if (isOpen) Request(feed);
        }

        /// <summary>Leaves a feed's company. Nothing waits for the answer.</summary>
        public void Unsubscribe(Feed feed)
        {
            if (feed.IsRequested) send("unsubscribe", new Dictionary<string, object> { { "companyId", feed.Company } });
            feed.IsRequested = false;
            if (feeds.Count == 0 && isOpen) ReportNoCompany();
        }

        /// <summary>Sends an `await` for each transaction that the application waits for, as far as is allowed.</summary>
        public void AwaitTransactions()
        {
            int room = MaxAwaited - feeds.Sum(each => each.Sent.Count);
            foreach (Feed feed in feeds.Where(each => each.IsSubscribed))
            {
                foreach (string tx in feed.Unsent.Take(Math.Max(0, room)))
                {
                    send("await", new Dictionary<string, object> { { "companyId", feed.Company }, { "tx", tx } });
                    feed.Sent.Add(tx);
                    room--;
                }
            }
        }

        /// <summary>The close was the answer to the first request. Returns whether no other company can be requested.</summary>
        public bool RefuseFirst()
        {
            if (requests.Count > 0) requests[0].Feed.Block("company_forbidden");
            return feeds.All(each => each.Blocked != null);
        }

        /// <summary>A message could not be read: it may be one of any company.</summary>
        public void CountFailure()
        {
            foreach (Feed feed in feeds.Where(each => each.IsSubscribed)) feed.CountFailure();
        }

        /// <summary>Takes a message about a company; another one is of a later protocol and may be ignored.</summary>
        public void Receive(Dictionary<string, object> message, string text)
        {
            switch (Properties.Text(message, "Type"))
            {
                case "SubscribeResult": Answered(message); break;
                case "CompanyRevoked": Revoked(message); break;
                case "Arrived": Arrived(message); break;
                case "Error": NotArrived(message); break;
                default:
                    if (Properties.Has(message, "Position")) Changed(message, text);
                    break;
            }
        }

        void Request(Feed feed)
        {
            if (feed.Blocked != null)
            {
                Report(feed, State.Idle, feed.Blocked);
                return;
            }
            // Another filter begins at the present position, with a reload; until then the server goes on with the former one.
            LogPosition head = feed.HasOtherFilter ? null : feed.Resume();
            if (!feed.HasOtherFilter) feed.IsSubscribed = false;
            var data = new Dictionary<string, object> { { "companyId", feed.Company } };
            if (head != null)
            {
                data["after"] = head.After;
                data["epoch"] = head.Epoch;
                if (head.At != null) data["at"] = head.At;
            }
            feed.Filter.AddTo(data);
            feed.Request = new Request { Feed = feed, Head = head, Filter = feed.Filter, Replaces = feed.IsSubscribed };
            feed.IsRequested = true;
            requested.Add(feed.Company);
            feed.Sent.Clear();
            requests.Add(feed.Request);
            send("subscribe", data);
            deadlines.ExpectResult();
            if (feed.Status.State != State.Connecting) Report(feed, State.Connecting);
        }

        /// <summary>Takes the answer to a `subscribe`: the first one of this company. A refusal may not name it.</summary>
        void Answered(Dictionary<string, object> message)
        {
            bool success = Properties.IsTrue(message, "Success");
            Dictionary<string, object> data = Properties.Object(message, "Data");
            string company = Properties.Text(data, "CompanyId");
            Request request = requests.FirstOrDefault(
                each => company == null ? !success : Feeds.IsSame(each.Feed.Company, company));
            if (request == null) return;
            requests.Remove(request);
            if (requests.Count > 0) deadlines.ExpectResult();
            else deadlines.EndWait();
            Feed feed = request.Feed;
            if (feed.IsClosed) return;
            feed.Request = null;
            if (request.IsOutdated)
            {
                feed.IsSubscribed = false; // what comes until the next answer is of a filter that was replaced
                Request(feed);
                return;
            }
            if (!success)
            {
                Refused(request, Properties.Object(message, "Error"));
                return;
            }
            string start = feed.HasOtherFilter ? "filter" : "start";
            Report report;
            try
            {
                report = feed.Acknowledge(request.Head, data, start);
            }
            catch (UnreadableException error)
            {
                throw new Disconnected("unreadable message", error: error);
            }
            feed.Accepted = request.Filter;
            feed.IsSubscribed = true;
            Report(feed, State.Live);
            dispatcher.Put(feed, report);
            AwaitTransactions();
        }

        void Refused(Request request, Dictionary<string, object> error)
        {
            Feed feed = request.Feed;
            string reason = Properties.Text(error, "Code");
            if (reason == null || !Refusals.Contains(reason))
            {
                throw new Disconnected(reason ?? "unreadable message");
            }
            if (reason == "bad_filter" && feed.HasOtherFilter)
            {
                feed.Filter = feed.Accepted;
                Report(feed, request.Replaces ? State.Live : State.Connecting, reason);
                if (request.Replaces) AwaitTransactions();
                else Request(feed);
                return;
            }
            if (feed.Accepted != null) Unsubscribe(feed); // the server would go on with what it accepted before
            feed.IsRequested = false;
            feed.Block(reason);
            Report(feed, State.Idle, reason);
        }

        /// <summary>
        /// The feed that a message belongs to. `case` and `rename` in notifier.toml may spell `CompanyId` otherwise. Its value is
        /// in the row all the same: if it has that of only one company, the message is of this one.
        /// </summary>
        Feed FeedOf(Dictionary<string, object> message)
        {
            if (requested.Count <= 1) return feeds.FirstOrDefault(each => each.IsRequested);
            Dictionary<string, object> data = Properties.Object(message, "Data");
            object company = Properties.Value(data, "CompanyId") ?? Properties.Value(data, "companyId");
            if (company != null) return feeds.Find(Id(company));
            List<string> named = requested.Where(
                name => data.Values.Any(value => value != null && Feeds.IsSame(name, Id(value)))).ToList();
            if (named.Count != 1) throw new Disconnected("unreadable message");
            return feeds.Find(named[0]);
        }

        /// <summary>The value of a column as the id of a company, which may be an integer.</summary>
        static string Id(object value)
        {
            return Convert.ToString(value, CultureInfo.InvariantCulture);
        }

        /// <summary>Takes a `CompanyRevoked`: the other companies go on.</summary>
        void Revoked(Dictionary<string, object> message)
        {
            Feed feed = feeds.Find(Properties.Text(Properties.Object(message, "Data"), "CompanyId"));
            if (feed == null || feed.Request != null) return;
            feed.IsRequested = false;
            feed.Block("revoked");
            Report(feed, State.Idle, "revoked");
        }

        /// <summary>Takes a message with a position.</summary>
        void Changed(Dictionary<string, object> message, string text)
        {
            Feed feed = FeedOf(message);
            if (feed == null || !feed.IsSubscribed) return; // of a company that was left, or after a gap that was requested again
            bool isGap;
            Report report;
            try
            {
                report = feed.Accept(message, text, out isGap);
            }
            catch (UnreadableException error)
            {
                throw new Disconnected("unreadable message", error: error);
            }
            if (isGap)
            {
                feed.IsSubscribed = false;
                Subscribe(feed);
            }
            else if (report != null) dispatcher.Put(feed, report);
        }

        void Arrived(Dictionary<string, object> message)
        {
            Feed feed = FeedOf(message);
            Dictionary<string, object> data = Properties.Object(message, "Data");
            string tx = Properties.Text(data, "Tx");
            long? position = Properties.Position(data);
            if (feed == null || position == null || !feed.Arrive(tx)) return;
            dispatcher.Put(feed, new Arrival(tx, position.Value));
            AwaitTransactions();
        }

        /// <summary>Takes an `Error` that answers an `await`.</summary>
        void NotArrived(Dictionary<string, object> message)
        {
            string tx = Properties.Text(Properties.Object(message, "Data"), "Tx");
            Feed feed = tx == null ? null : FeedOf(message);
            if (feed == null || !feed.Sent.Contains(tx)) return;
            Dictionary<string, object> error = Properties.Object(message, "Error");
            feed.Reject(tx, Properties.Text(error, "Code") ?? "", Properties.Text(error, "Message") ?? "");
            AwaitTransactions();
        }

        void Report(Feed feed, State state, string reason = null)
        {
            feed.Status = new Status(state, feed.Company, reason);
            dispatcher.Put(feed, feed.Status);
        }

        void ReportNoCompany()
        {
            feeds.Connection = new Status(State.Idle, null, "no company");
            dispatcher.Put(null, feeds.Connection);
        }
    }
}
