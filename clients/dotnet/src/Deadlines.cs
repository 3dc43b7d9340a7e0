using System;
using System.Diagnostics;
using System.Threading;

namespace Notifier.Client
{
    /// <summary>How long one socket waits: for an answer, for a sign of life, for a close. Its methods are called under the gate.</summary>
    internal sealed class Deadlines : IDisposable
    {
        readonly object gate;
        readonly ClientOptions options;
        readonly Action ping;
        readonly Action<Disconnected> drop;
        readonly Stopwatch clock = Stopwatch.StartNew();
        readonly Timer timer;
        bool isDisposed;
        bool isPinged;

        // Times of the clock; null: nothing is waited for.
        TimeSpan? answer, life;
        Func<Disconnected> late;

        /// <summary>`ping` sends a ping, `drop` ends the connection.</summary>
        public Deadlines(object gate, ClientOptions options, Action ping, Action<Disconnected> drop)
        {
            this.gate = gate;
            this.options = options;
            this.ping = ping;
            this.drop = drop;
            timer = new Timer(unused => Look(), null, System.Threading.Timeout.Infinite, System.Threading.Timeout.Infinite);
        }

        /// <summary>Drops the link unless the server answers in time.</summary>
        public void ExpectAnswer()
        {
            Expect(options.Timeout, () => new Disconnected("no answer"));
        }

        /// <summary>The same for a subscription: many clients subscribe at the same time after a restart.</summary>
        public void ExpectResult()
        {
            Expect(TimeSpan.FromTicks(3 * options.Timeout.Ticks), () => new Disconnected("no answer"));
        }

        /// <summary>The server has announced the close; the close itself may be lost.</summary>
        public void ExpectClose(Func<Disconnected> end)
        {
            Expect(options.Timeout, end);
        }

        /// <summary>The answer is there.</summary>
        public void EndWait()
        {
            answer = null;
            Set();
        }

        /// <summary>Any message is a sign of life.</summary>
        public void MarkAlive()
        {
            isPinged = false;
            life = clock.Elapsed + options.Heartbeat;
            Set();
        }

        /// <summary>The socket is not read for a while: the server need not answer.</summary>
        public void Pause()
        {
            answer = life = null;
            Set();
        }

        /// <summary>The socket has ended.</summary>
        public void Dispose()
        {
            isDisposed = true;
            timer.Dispose();
        }

        void Expect(TimeSpan limit, Func<Disconnected> end)
        {
            answer = clock.Elapsed + limit;
            late = end;
            Set();
        }

        void Set()
        {
            if (isDisposed) return;
            TimeSpan? next = answer == null || life < answer ? life : answer;
            long wait = next == null ? System.Threading.Timeout.Infinite : Math.Max(1, (long)(next.Value - clock.Elapsed).TotalMilliseconds + 1);
            timer.Change(wait, System.Threading.Timeout.Infinite);
        }

        void Look()
        {
            lock (gate)
            {
                if (isDisposed) return;
                TimeSpan now = clock.Elapsed;
                if (answer <= now)
                {
                    answer = life = null;
                    drop(late());
                }
                else if (life <= now && isPinged)
                {
                    answer = life = null;
                    drop(new Disconnected("silent link"));
                }
                else if (life <= now)
                {
                    isPinged = true;
                    life = now + options.Timeout;
                    ping();
                }
                Set();
            }
        }
    }
}
