using System;
using System.Collections.Generic;
using System.Linq;
using System.Threading;
using System.Threading.Tasks;

namespace Notifier.Client
{
    /// <summary>A message does not conform to the protocol.</summary>
    internal sealed class UnreadableException : Exception
    {
    }

    /// <summary>A `subscribe` without an answer yet. IsOutdated: the application wants another filter meanwhile.</summary>
    internal sealed class Request
    {
        public Feed Feed;
        public LogPosition Head;
        public Filter Filter;
        public bool Replaces;
        public bool IsOutdated;
    }

    /// <summary>One company of a client: its filter, its positions, its open request, the transactions that are awaited. Used under the gate.</summary>
    internal sealed class Feed
    {
        const int MaxGapRetries = 3;

        readonly Dictionary<string, List<TaskCompletionSource<long>>> waiting = new Dictionary<string, List<TaskCompletionSource<long>>>();
        readonly HashSet<string> arrived = new HashSet<string>();
        int failures; // in a row, to get the message after Head

        public Feed(string company, SubscriptionOptions options)
        {
            Company = company;
            Options = options;
            Filter = options.Filter;
            Head = Handled = options.Position;
        }

        public string Company { get; }

        public SubscriptionOptions Options { get; }

        /// <summary>Cancelled when the company is left or the client closed.</summary>
        public CancellationTokenSource Left { get; } = new CancellationTokenSource();

        /// <summary>The filter that the application wants, and the one that the server has accepted last.</summary>
        public Filter Filter { get; set; }

        public Filter Accepted { get; set; }

        /// <summary>The last message that was received, and the last one that the application has handled.</summary>
        public LogPosition Head { get; private set; }

        public LogPosition Handled { get; set; }

        /// <summary>Why the company must not be requested: `revoked`, or the code of a refusal.</summary>
        public string Blocked { get; set; }

        public Request Request { get; set; }

        /// <summary>This connection has sent a command for the company; its messages may be accepted; the application has left it.</summary>
        public bool IsRequested { get; set; }

        public bool IsSubscribed { get; set; }

        public bool IsClosed { get; private set; }

        public Status Status { get; set; }

        /// <summary>Transactions that this connection has sent an `await` for.</summary>
        public HashSet<string> Sent { get; } = new HashSet<string>();

        /// <summary>The transactions that an `await` has to be sent for.</summary>
        public List<string> Unsent => waiting.Keys.Where(tx => !Sent.Contains(tx) && !arrived.Contains(tx)).ToList();

        /// <summary>Whether the application wants another filter than the one that was accepted.</summary>
        public bool HasOtherFilter => Accepted != null && !Accepted.IsSameAs(Filter);

        public void CountFailure()
        {
            failures++;
        }

        /// <summary>The position to request; null if there is none, or a gap cannot be filled.</summary>
        public LogPosition Resume()
        {
            if (failures > MaxGapRetries) Head = null;
            return Head;
        }

        /// <summary>Takes the `Data` of the answer to a request. Throws UnreadableException.</summary>
        public Report Acknowledge(LogPosition requested, IReadOnlyDictionary<string, object> data, string start)
        {
            long? position = Properties.Position(data);
            string epoch = Properties.Text(data, "Epoch");
            if (position == null || epoch == null) throw new UnreadableException();
            var head = new LogPosition(position.Value, epoch, Properties.Text(data, "At"));
            if (Properties.IsTrue(data, "Recovered") && requested != null && head.Equals(requested))
            {
                Head = requested.At == null ? head : requested;
                return new Recovered(Company, Head);
            }
            string reason = "expired";
            if (failures > MaxGapRetries) reason = "gap";
            else if (requested == null) reason = start;
            else if (epoch != requested.Epoch || position == requested.After && !head.Equals(requested)) reason = "epoch";
            return MoveTo(head, reason);
        }

        /// <summary>
        /// Takes a message that has a position: its report, or null for a duplicate. `isGap`: messages before it are missing.
        /// Throws UnreadableException.
        /// </summary>
        public Report Accept(IReadOnlyDictionary<string, object> message, string text, out bool isGap)
        {
            isGap = false;
            long? position = Properties.Position(message);
            if (position == null)
            {
                failures++;
                throw new UnreadableException();
            }
            string type = Properties.Text(message, "Type"), at = Properties.Text(message, "At");
            IReadOnlyDictionary<string, object> data = Properties.Object(message, "Data");
            if (type == "Resync")
            {
                string epoch = Properties.Text(data, "Epoch") ?? Head.Epoch;
                if (epoch == Head.Epoch && position < Head.After) return null; // at the same one the rows' user has changed
                return MoveTo(new LogPosition(position.Value, epoch, at), Properties.Text(data, "Reason") ?? "");
            }
            if (position <= Head.After) return null;
            if (type != "Skipped" && position > Head.After + 1)
            {
                failures++;
                isGap = true;
                return null;
            }
            failures = 0;
            Head = new LogPosition(position.Value, Head.Epoch, at);
            if (type == "Skipped") return new Skipped(Company, Head);
            return new RowChange(Company, Head, message, text);
        }

        /// <summary>The connection has ended, and with it what was requested over it.</summary>
        public void Disconnect()
        {
            Request = null;
            IsRequested = IsSubscribed = false;
            Sent.Clear();
        }

        /// <summary>The company must not be requested again before the application acts.</summary>
        public void Block(string reason)
        {
            Blocked = reason;
            IsSubscribed = false;
            Fail(reason);
        }

        /// <summary>The application has left the company.</summary>
        public void Close()
        {
            IsClosed = true;
            IsSubscribed = false;
            Handled = null;
            Fail("the company was left");
        }

        /// <summary>Completed with the position at which the messages of a transaction have arrived.</summary>
        public Task<long> Expect(string tx)
        {
            List<TaskCompletionSource<long>> all;
            if (!waiting.TryGetValue(tx, out all)) waiting[tx] = all = new List<TaskCompletionSource<long>>();
            var arrival = new TaskCompletionSource<long>(TaskCreationOptions.RunContinuationsAsynchronously);
            all.Add(arrival);
            return arrival.Task;
        }

        /// <summary>The server has reported a transaction's arrival. Returns whether it was awaited.</summary>
        public bool Arrive(string tx)
        {
            if (tx == null || !Sent.Remove(tx)) return false;
            arrived.Add(tx);
            return true;
        }

        /// <summary>The application has handled all messages of a transaction.</summary>
        public void Resolve(string tx, long position)
        {
            foreach (TaskCompletionSource<long> each in Take(tx)) each.TrySetResult(position);
        }

        /// <summary>The server will not report this transaction's arrival.</summary>
        public void Reject(string tx, string code, string message)
        {
            foreach (TaskCompletionSource<long> each in Take(tx))
            {
                each.TrySetException(new ArrivalException(code, message));
                Within.Forget(each.Task);
            }
        }

        /// <summary>No arrival will be reported any more.</summary>
        public void Fail(string reason)
        {
            foreach (string tx in waiting.Keys.ToList()) Reject(tx, ArrivalException.NotSubscribed, reason);
        }

        List<TaskCompletionSource<long>> Take(string tx)
        {
            Sent.Remove(tx);
            arrived.Remove(tx);
            List<TaskCompletionSource<long>> all;
            if (!waiting.TryGetValue(tx, out all)) return new List<TaskCompletionSource<long>>();
            waiting.Remove(tx);
            return all;
        }

        Reload MoveTo(LogPosition head, string reason)
        {
            Head = head;
            failures = 0;
            return new Reload(Company, head, reason);
        }
    }
}
