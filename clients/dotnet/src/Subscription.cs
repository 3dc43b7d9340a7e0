using System;
using System.Threading.Tasks;

namespace Notifier.Client
{
    /// <summary>One of a client's companies: its filter, its position, its end.</summary>
    public sealed class Subscription
    {
        readonly object gate;
        readonly Link link;
        readonly Feed feed;
        readonly Action checkOpen;

        internal Subscription(object gate, Link link, Feed feed, Action checkOpen)
        {
            this.gate = gate;
            this.link = link;
            this.feed = feed;
            this.checkOpen = checkOpen;
        }

        /// <summary>The company, as the application spells it.</summary>
        public string Company => feed.Company;

        /// <summary>
        /// The last message that was handled, with all before it: save it with your state, and resume there. Null while your
        /// state is incomplete: before the first OnReload has ended, and during each later one.
        /// </summary>
        public LogPosition Position
        {
            get
            {
                lock (gate) return feed.Handled;
            }
        }

        /// <summary>The state of this company; the connection's while there is none.</summary>
        public Status Status
        {
            get
            {
                lock (gate) return feed.Status;
            }
        }

        /// <summary>
        /// Replaces the filter. OnReload is called once it is accepted: reload the state that it shows. The former one stays until
        /// then, and if the new one is refused (`bad_filter`).
        /// </summary>
        public void SetFilter(Filter filter)
        {
            if (filter == null) throw new ArgumentNullException(nameof(filter));
            lock (gate)
            {
                checkOpen();
                if (feed.IsClosed) throw new InvalidOperationException("this subscription has ended");
                feed.Filter = filter;
                if (feed.Blocked == "bad_filter") feed.Blocked = null;
                if (feed.Blocked == null) link.Companies?.Subscribe(feed);
            }
        }

        /// <summary>
        /// Completed when all messages of a transaction were handled, with the company's position then. `tx` is its
        /// `pg_current_xact_id()`. The question is repeated after a reconnect. Fails with ArrivalException. Not to be awaited
        /// in a callback, which it would wait for.
        /// </summary>
        public Task<long> ArrivedAsync(string tx)
        {
            if (string.IsNullOrEmpty(tx)) throw new ArgumentException("there is no transaction to wait for", nameof(tx));
            lock (gate)
            {
                if (link.Dispatcher.IsInCallback) throw new InvalidOperationException("ArrivedAsync waits for the callbacks before it: await it outside of them");
                State state = link.Feeds.Connection.State;
                if (feed.IsClosed || feed.Blocked != null || state == State.Stopped || state == State.Closed)
                {
                    return Task.FromException<long>(new ArrivalException(ArrivalException.NotSubscribed, feed.Blocked ?? feed.Status.ToString()));
                }
                Task<long> arrival = feed.Expect(tx);
                link.Companies?.AwaitTransactions();
                return arrival;
            }
        }

        /// <summary>Leaves the company: nothing more of it is reported.</summary>
        public void Unsubscribe()
        {
            lock (gate)
            {
                if (feed.IsClosed) return;
                feed.Close();
                feed.Status = new Status(State.Closed, feed.Company);
                link.Feeds.Remove(feed);
                link.Dispatcher.Discard(feed);
                link.Companies?.Unsubscribe(feed);
            }
            NotifierClient.Cancel(feed);
        }
    }
}
