using System;
using System.Net.WebSockets;
using System.Threading;
using System.Threading.Tasks;

namespace Notifier.Client
{
    /// <summary>Keeps one connection open and the companies on it subscribed. Its methods are called under the gate.</summary>
    internal sealed class Link
    {
        readonly object gate;
        readonly Uri url;
        readonly ClientOptions options;
        readonly TokenSource tokens;
        readonly Backoff backoff;
        CancellationTokenSource attempts = new CancellationTokenSource();
        Conversation conversation;

        public Link(object gate, Uri url, Func<CancellationToken, Task<string>> getToken, ClientOptions options)
        {
            this.gate = gate;
            this.url = url;
            this.options = options;
            tokens = new TokenSource(getToken, TimeSpan.FromTicks(3 * options.Timeout.Ticks));
            backoff = new Backoff(options);
            Dispatcher = new Dispatcher(gate, options);
        }

        public Feeds Feeds { get; } = new Feeds();

        public Dispatcher Dispatcher { get; }

        /// <summary>The companies of the open socket; null without one.</summary>
        public Companies Companies => conversation?.Companies;

        /// <summary>Completed when no attempt to connect will follow.</summary>
        public Task Running { get; private set; } = Task.FromResult(true);

        /// <summary>Connects, in place of an attempt that is under way.</summary>
        public void Start()
        {
            Task former = Running;
            Stop("replaced");
            attempts = new CancellationTokenSource();
            CancellationToken token = attempts.Token;
            Running = Task.Run(() => RunAsync(former, token));
        }

        /// <summary>Connects at once, and requests again what was refused.</summary>
        public void Restart()
        {
            foreach (Feed feed in Feeds) feed.Blocked = null;
            tokens.ForgetRefusal();
            backoff.Reset();
            Start();
        }

        /// <summary>Ends the connection.</summary>
        public void Stop(string reason)
        {
            attempts.Cancel();
            conversation?.Drop(new Disconnected(reason));
        }

        async Task RunAsync(Task former, CancellationToken stopped)
        {
            await former.ConfigureAwait(false);
            while (!stopped.IsCancellationRequested)
            {
                Report(stopped, new Status(State.Connecting));
                Disconnected end = await ConverseAsync(stopped).ConfigureAwait(false);
                TimeSpan delay;
                lock (gate)
                {
                    if (stopped.IsCancellationRequested) return;
                    if (end.IsFinal)
                    {
                        Report(stopped, new Status(State.Stopped, null, end.Message, end.Code, end.InnerException));
                        Feeds.Fail(end.Message);
                        return;
                    }
                    delay = backoff.Next(end.Floor);
                    Report(stopped, new Status(State.Waiting, null, end.Message, end.Code, end.InnerException, delay));
                }
                await Task.WhenAny(Task.Delay(delay, stopped)).ConfigureAwait(false);
            }
        }

        /// <summary>One attempt, from the token to the close.</summary>
        async Task<Disconnected> ConverseAsync(CancellationToken stopped)
        {
            try
            {
                string token = await tokens.FetchAsync(stopped).ConfigureAwait(false);
                tokens.Check(token);
                ClientWebSocket socket = await OpenAsync(stopped).ConfigureAwait(false);
                Conversation open;
                lock (gate)
                {
                    open = new Conversation(gate, socket, token, options, Feeds, Dispatcher, tokens, backoff);
                    if (stopped.IsCancellationRequested) open.Drop(new Disconnected("stopped"));
                    conversation = open;
                }
                try
                {
                    return await open.RunAsync().ConfigureAwait(false);
                }
                finally
                {
                    lock (gate) conversation = null;
                }
            }
            catch (Disconnected end)
            {
                return end;
            }
            catch (Exception error)
            {
                return new Disconnected("cannot connect", Disconnected.BrokenLink, error);
            }
        }

        /// <summary>An open socket. Throws what the attempt throws, and Disconnected if it takes too long.</summary>
        async Task<ClientWebSocket> OpenAsync(CancellationToken stopped)
        {
            var socket = new ClientWebSocket();
            try
            {
                options.ConfigureSocket?.Invoke(socket.Options);
                Task connecting = socket.ConnectAsync(url, stopped);
                var cancelled = Task.Delay(Timeout.Infinite, stopped);
                if (!await Within.Time(Task.WhenAny(connecting, cancelled), options.Timeout).ConfigureAwait(false))
                {
                    Within.Forget(connecting);
                    throw new Disconnected("no answer", Disconnected.BrokenLink);
                }
                if (!connecting.IsCompleted)
                {
                    Within.Forget(connecting);
                    throw new Disconnected("stopped");
                }
                await connecting.ConfigureAwait(false);
                return socket;
            }
            catch (Exception)
            {
                socket.Abort();
                socket.Dispose();
                throw;
            }
        }

        void Report(CancellationToken stopped, Status status)
        {
            lock (gate)
            {
                if (stopped.IsCancellationRequested) return;
                Feeds.Report(status);
                Dispatcher.Put(null, status);
            }
        }
    }
}
