using System;
using System.Threading;
using System.Threading.Tasks;

namespace Notifier.Client
{
    /// <summary>
    /// A client of Notifier: follows companies and never loses a message silently. It reconnects and resumes by itself.
    /// All members may be used from any thread.
    /// <code>
    /// var client = new NotifierClient("wss://calendar.example/", cancel => FetchToken(cancel));
    /// client.Subscribe("acme", new SubscriptionOptions
    /// {
    ///     OnReload = async (reload, cancel) => Show(await LoadAll("acme", cancel)),
    ///     OnMessage = async change => await Apply(change.Type, change.Data),
    /// });
    /// client.Start();
    /// </code>
    /// </summary>
    public sealed class NotifierClient : IDisposable
    {
        readonly object gate = new object();
        readonly Link link;
        bool isStarted, isClosed;

        /// <summary>
        /// `getToken` is called for each connection and shortly before the token expires. A token that was refused or has expired
        /// is not presented again, so a cache behind it should not outlive the token. Throws ArgumentException.
        /// </summary>
        public NotifierClient(string url, Func<CancellationToken, Task<string>> getToken, ClientOptions options = null)
        {
            Uri address;
            if (!Uri.TryCreate(url, UriKind.Absolute, out address) || address.Scheme != "ws" && address.Scheme != "wss")
            {
                throw new ArgumentException(url + " is not a ws:// or wss:// URL", nameof(url));
            }
            if (getToken == null) throw new ArgumentNullException(nameof(getToken));
            link = new Link(gate, address, getToken, (options ?? new ClientOptions()).Checked());
        }

        /// <summary>With several companies, that of one which is connecting; if there is none, of one which is live.</summary>
        public Status Status
        {
            get
            {
                lock (gate) return link.Feeds.Status;
            }
        }

        /// <summary>Connects, and stays connected until the client is closed. Companies may be added before and after it.</summary>
        public void Start()
        {
            lock (gate)
            {
                CheckOpen();
                if (isStarted) throw new InvalidOperationException("this client was started already");
                isStarted = true;
                link.Start();
            }
        }

        /// <summary>Follows one more company. Throws ArgumentException if the client follows it already, or the options cannot work.</summary>
        public Subscription Subscribe(string company, SubscriptionOptions options)
        {
            if (string.IsNullOrEmpty(company)) throw new ArgumentException("there is no company to subscribe to", nameof(company));
            if (options == null) throw new ArgumentNullException(nameof(options));
            var feed = new Feed(company, options.Checked());
            lock (gate)
            {
                CheckOpen();
                link.Feeds.Add(feed);
                if (link.Companies != null) link.Companies.Subscribe(feed);
                else if (link.Feeds.Connection.Code == Disconnected.CompanyForbidden) link.Start(); // it stopped because every company was refused
                return new Subscription(gate, link, feed, CheckOpen);
            }
        }

        /// <summary>Connects again now, whatever the reason not to.</summary>
        public void Reconnect()
        {
            lock (gate)
            {
                CheckOpen();
                isStarted = true;
                link.Restart();
            }
        }

        /// <summary>
        /// Closes the client for good. Completed when the connection has ended and no callback runs any more; in a callback,
        /// when the connection has ended.
        /// </summary>
        public async Task CloseAsync()
        {
            Task running, callback;
            lock (gate)
            {
                Close();
                running = link.Running;
                callback = link.Dispatcher.IsInCallback ? running : link.Dispatcher.Running;
            }
            await running.ConfigureAwait(false);
            await callback.ConfigureAwait(false);
        }

        /// <summary>As CloseAsync, but does not wait. No callback begins after it, but for OnStatus.</summary>
        public void Dispose()
        {
            lock (gate) Close();
        }

        void Close()
        {
            if (isClosed) return;
            isClosed = true;
            var status = new Status(State.Closed);
            link.Stop("closed");
            link.Feeds.Report(status);
            link.Feeds.Fail("the client is closed");
            link.Dispatcher.Close();
            link.Dispatcher.Put(null, status);
            foreach (Feed feed in link.Feeds) Cancel(feed);
        }

        void CheckOpen()
        {
            if (isClosed) throw new ObjectDisposedException(nameof(NotifierClient));
        }

        /// <summary>Not under the gate: the application's registrations run.</summary>
        internal static void Cancel(Feed feed)
        {
            Within.Forget(Task.Run(() => feed.Left.Cancel()));
        }
    }
}
