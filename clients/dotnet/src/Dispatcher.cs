using System;
using System.Collections.Generic;
using System.Linq;
using System.Threading;
using System.Threading.Tasks;

namespace Notifier.Client
{
    /// <summary>A transaction's last message stands before it in the queue.</summary>
    internal sealed class Arrival
    {
        public Arrival(string tx, long position)
        {
            Tx = tx;
            Position = position;
        }

        public string Tx { get; }

        public long Position { get; }
    }

    /// <summary>
    /// Calls the application back, one callback at a time. Its methods are called under the gate, but for the callbacks.
    /// While Room is not completed, because too many reports wait, the socket is not read.
    /// </summary>
    internal sealed class Dispatcher
    {
        const int MaxWaiting = 1000;

        static readonly AsyncLocal<Callback> Current = new AsyncLocal<Callback>();

        readonly object gate;
        readonly ClientOptions options;
        readonly LinkedList<Entry> entries = new LinkedList<Entry>();
        readonly Dictionary<Feed, Failure> failures = new Dictionary<Feed, Failure>();
        TaskCompletionSource<bool> room = new TaskCompletionSource<bool>();
        Task running = Task.FromResult(true);
        bool isRunning, isClosed;

        public Dispatcher(object gate, ClientOptions options)
        {
            this.gate = gate;
            this.options = options;
            room.SetResult(true);
        }

        /// <summary>Completed while the connection may read further messages.</summary>
        public Task Room => room.Task;

        /// <summary>Completed when no callback runs any more.</summary>
        public Task Running => running;

        /// <summary>Whether the caller is a callback of this client, which must not wait for a further one.</summary>
        public bool IsInCallback => Current.Value != null && Current.Value.Owner == this && Current.Value.IsRunning;

        /// <summary>Appends a report. A reload replaces the feed's reports; its arrivals are moved behind it.</summary>
        public void Put(Feed feed, object report)
        {
            if (isClosed && !(report is Status)) return;
            var moved = new List<Entry>();
            if (report is Reload) moved = Drop(feed);
            entries.AddLast(new Entry(feed, report));
            foreach (Entry each in moved) entries.AddLast(each);
            if (entries.Count >= MaxWaiting && room.Task.IsCompleted)
            {
                room = new TaskCompletionSource<bool>(TaskCreationOptions.RunContinuationsAsynchronously);
            }
            Run();
        }

        /// <summary>Drops all reports of a feed that was left, but statuses.</summary>
        public void Discard(Feed feed)
        {
            Drop(feed);
            failures.Remove(feed);
            MakeRoom();
        }

        /// <summary>Drops all reports but statuses, for good.</summary>
        public void Close()
        {
            isClosed = true;
            List<Entry> kept = entries.Where(each => each.Report is Status).ToList();
            entries.Clear();
            foreach (Entry each in kept) entries.AddLast(each);
            failures.Clear();
            MakeRoom();
        }

        void Run()
        {
            if (isRunning) return;
            isRunning = true;
            running = Task.Run(RunAsync);
        }

        async Task RunAsync()
        {
            while (true)
            {
                Entry entry;
                lock (gate)
                {
                    if (entries.Count == 0)
                    {
                        isRunning = false;
                        return;
                    }
                    entry = entries.First.Value;
                    entries.RemoveFirst();
                    MakeRoom();
                    if (entry.Feed != null && !(entry.Report is Status) && Defer(entry)) continue;
                }
                await HandleAsync(entry.Feed, entry.Report).ConfigureAwait(false);
            }
        }

        async Task HandleAsync(Feed feed, object report)
        {
            if (report is Status)
            {
                await CallAsync(() =>
                {
                    options.OnStatus?.Invoke((Status)report);
                    return null;
                }).ConfigureAwait(false);
                return;
            }
            if (report is Arrival)
            {
                var arrival = (Arrival)report;
                lock (gate) feed.Resolve(arrival.Tx, arrival.Position);
                return;
            }
            if (report is Reload)
            {
                await ReloadAsync(feed, (Reload)report).ConfigureAwait(false);
                return;
            }
            SubscriptionOptions callbacks = feed.Options;
            Exception error;
            if (report is RowChange) error = await CallAsync(() => callbacks.OnMessage((RowChange)report)).ConfigureAwait(false);
            else if (report is Skipped) error = await CallAsync(() => callbacks.OnSkipped?.Invoke((Skipped)report)).ConfigureAwait(false);
            else error = await CallAsync(() => callbacks.OnRecovered?.Invoke((Recovered)report)).ConfigureAwait(false);
            LogPosition position = ((Report)report).Position;
            if (error == null)
            {
                lock (gate) if (!feed.IsClosed) feed.Handled = position;
                return;
            }
            ReportError(feed, "callback failed", error);
            await ReloadAsync(feed, new Reload(feed.Company, position, "failed")).ConfigureAwait(false);
        }

        /// <summary>Reloads the state of a company; where that fails, again later, and its messages wait.</summary>
        async Task ReloadAsync(Feed feed, Reload reload)
        {
            CancellationToken left = feed.Left.Token;
            lock (gate)
            {
                if (feed.IsClosed || isClosed) return;
                feed.Handled = null;
            }
            Exception error = await CallAsync(() => feed.Options.OnReload(reload, left)).ConfigureAwait(false);
            lock (gate)
            {
                if (feed.IsClosed || isClosed) return;
                Failure failure;
                if (!failures.TryGetValue(feed, out failure)) failure = new Failure();
                if (error == null)
                {
                    feed.Handled = reload.Position;
                    failures.Remove(feed);
                    return;
                }
                failure.Reload = reload;
                failure.Waiting = new List<Entry>();
                failures[feed] = failure;
                int milliseconds = (int)Math.Min(options.MaxDelay.TotalMilliseconds, options.MinDelay.TotalMilliseconds * Math.Pow(2, failure.Count++));
                Within.Forget(Task.Delay(milliseconds, left).ContinueWith(
                    unused => Retry(feed), CancellationToken.None, TaskContinuationOptions.OnlyOnRanToCompletion, TaskScheduler.Default));
            }
            ReportError(feed, "reload failed", error);
        }

        /// <summary>Puts the failed reload, and what has waited for it, before all others.</summary>
        void Retry(Feed feed)
        {
            lock (gate)
            {
                Failure failure;
                if (!failures.TryGetValue(feed, out failure) || failure.Waiting == null) return;
                for (int i = failure.Waiting.Count - 1; i >= 0; i--) entries.AddFirst(failure.Waiting[i]);
                entries.AddFirst(new Entry(feed, failure.Reload));
                failure.Waiting = null;
                Run();
            }
        }

        /// <summary>Lets a report wait if its feed's reload has failed. Returns whether it did.</summary>
        bool Defer(Entry entry)
        {
            Failure failure;
            if (!failures.TryGetValue(entry.Feed, out failure) || failure.Waiting == null) return false;
            Reload reload = entry.Report as Reload;
            if (reload == null && failure.Waiting.Count >= MaxWaiting && entry.Report is Report)
            {
                reload = new Reload(entry.Feed.Company, ((Report)entry.Report).Position, "overflow");
            }
            if (reload == null)
            {
                failure.Waiting.Add(entry);
                return true;
            }
            failure.Reload = reload;
            failure.Waiting.RemoveAll(each => each.Report is Report);
            return true;
        }

        void ReportError(Feed feed, string reason, Exception error)
        {
            lock (gate)
            {
                feed.Status = new Status(feed.Status.State, feed.Company, reason, feed.Status.Code, error, feed.Status.RetryIn);
                Put(feed, feed.Status);
            }
        }

        /// <summary>Calls the application; returns what it throws.</summary>
        async Task<Exception> CallAsync(Func<Task> callback)
        {
            var scope = new Callback { Owner = this, IsRunning = true };
            Current.Value = scope;
            try
            {
                Task task = callback();
                if (task != null) await task.ConfigureAwait(false);
                return null;
            }
            catch (Exception error)
            {
                return error;
            }
            finally
            {
                scope.IsRunning = false;
                Current.Value = null;
            }
        }

        List<Entry> Drop(Feed feed)
        {
            var arrivals = new List<Entry>();
            for (LinkedListNode<Entry> node = entries.First, next; node != null; node = next)
            {
                next = node.Next;
                if (node.Value.Feed != feed || node.Value.Report is Status) continue;
                if (node.Value.Report is Arrival) arrivals.Add(node.Value);
                entries.Remove(node);
            }
            return arrivals;
        }

        void MakeRoom()
        {
            if (entries.Count <= MaxWaiting / 2) room.TrySetResult(true);
        }

        struct Entry
        {
            public Entry(Feed feed, object report)
            {
                Feed = feed;
                Report = report;
            }

            public Feed Feed { get; }

            public object Report { get; }
        }

        /// <summary>A reload that has failed. Waiting: what came behind it; null while it is repeated.</summary>
        sealed class Failure
        {
            public Reload Reload;
            public List<Entry> Waiting;
            public int Count;
        }

        sealed class Callback
        {
            public Dispatcher Owner;
            public volatile bool IsRunning;
        }
    }
}
