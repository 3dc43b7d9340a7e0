using System;
using System.Net.WebSockets;
using System.Threading;
using System.Threading.Tasks;

namespace Notifier.Client
{
    /// <summary>Options of a client.</summary>
    public sealed class ClientOptions
    {
        /// <summary>Called with each change of the connection's state, or a company's. What it throws is ignored.</summary>
        public Action<Status> OnStatus { get; set; }

        /// <summary>After this much silence the client sends a ping.</summary>
        public TimeSpan Heartbeat { get; set; } = TimeSpan.FromSeconds(15);

        /// <summary>Without an answer within this time the client drops the link.</summary>
        public TimeSpan Timeout { get; set; } = TimeSpan.FromSeconds(10);

        /// <summary>The first wait before a reconnect is a random part of it, each further one of twice as long …</summary>
        public TimeSpan MinDelay { get; set; } = TimeSpan.FromSeconds(1);

        /// <summary>… up to this bound.</summary>
        public TimeSpan MaxDelay { get; set; } = TimeSpan.FromSeconds(30);

        /// <summary>Changes the options of each socket: a proxy, certificates, headers.</summary>
        public Action<ClientWebSocketOptions> ConfigureSocket { get; set; }

        internal ClientOptions Checked()
        {
            foreach (TimeSpan each in new[] { Heartbeat, Timeout, MinDelay, MaxDelay })
            {
                if (each <= TimeSpan.Zero || each > TimeSpan.FromDays(1)) throw new ArgumentException("durations are between 0 and a day");
            }
            return (ClientOptions)MemberwiseClone();
        }
    }

    /// <summary>
    /// What to follow of a company, and what to call. Callbacks run one at a time, whatever the company: what arrives
    /// meanwhile waits, so an older state never overwrites a newer message.
    /// </summary>
    public sealed class SubscriptionOptions
    {
        /// <summary>Which changes; all of them by default.</summary>
        public Filter Filter { get; set; } = Filter.All;

        /// <summary>Where to resume: the value of Subscription.Position when you saved your state. Null: at the present position.</summary>
        public LogPosition Position { get; set; }

        /// <summary>Called with each message, once. If it throws, OnReload is called: the message may not have been applied.</summary>
        public Func<RowChange, Task> OnMessage { get; set; }

        /// <summary>
        /// Reload your state. Messages of this company wait until the task has ended; if it fails it is called again later. The
        /// token is cancelled when the company is left or the client closed.
        /// </summary>
        public Func<Reload, CancellationToken, Task> OnReload { get; set; }

        /// <summary>Called where a position moves on without a message: a saved one may follow.</summary>
        public Func<Skipped, Task> OnSkipped { get; set; }

        /// <summary>Called where everything that was missed follows.</summary>
        public Func<Recovered, Task> OnRecovered { get; set; }

        internal SubscriptionOptions Checked()
        {
            if (OnMessage == null || OnReload == null) throw new ArgumentException("a subscription needs OnMessage and OnReload");
            if (Filter == null) throw new ArgumentException("Filter is null; Filter.All is no filter");
            return (SubscriptionOptions)MemberwiseClone();
        }
    }
}
