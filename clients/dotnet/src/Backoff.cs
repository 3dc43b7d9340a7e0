using System;
using System.Diagnostics;

namespace Notifier.Client
{
    /// <summary>Counts failures in a row, for the delay before the next attempt. Used under the gate, but for Delay.</summary>
    internal sealed class Backoff
    {
        static readonly TimeSpan Steady = TimeSpan.FromSeconds(5);
        static readonly TimeSpan Max = TimeSpan.FromHours(1);

        readonly ClientOptions options;
        readonly Random random = new Random(Guid.NewGuid().GetHashCode());
        Stopwatch open;
        int failures;

        public Backoff(ClientOptions options)
        {
            this.options = options;
        }

        /// <summary>The user is authenticated: if the connection lasts for some seconds from now, it is a success.</summary>
        public void ExpectToLast()
        {
            open = Stopwatch.StartNew();
        }

        /// <summary>Counts a failure. How long to wait: what the server has requested, and a random part.</summary>
        public TimeSpan Next(TimeSpan floor)
        {
            if (open != null && open.Elapsed > Steady) failures = 0;
            open = null;
            TimeSpan delay = floor + Delay(failures++);
            return delay < Max ? delay : Max;
        }

        /// <summary>The next failure counts as the first one.</summary>
        public void Reset()
        {
            failures = 0;
        }

        /// <summary>Full jitter: between zero and a bound that doubles with each failure up to MaxDelay.</summary>
        public TimeSpan Delay(int count)
        {
            double bound = Math.Min(options.MaxDelay.TotalMilliseconds, options.MinDelay.TotalMilliseconds * Math.Pow(2, Math.Min(count, 60)));
            lock (random) return TimeSpan.FromMilliseconds(random.NextDouble() * bound);
        }
    }
}
