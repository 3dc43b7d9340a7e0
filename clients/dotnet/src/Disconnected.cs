using System;
using System.Collections.Generic;
using System.Threading.Tasks;

namespace Notifier.Client
{
    /// <summary>
    /// There is no connection, or it is of no use any more. Another attempt comes after at least Floor; none comes by itself
    /// where IsFinal. The codes are in docs/protocol.md.
    /// </summary>
    internal sealed class Disconnected : Exception
    {
        public const int BrokenLink = 1006, TokenInvalid = 4401, CompanyForbidden = 4403, TokenExpired = 4419, TooMany = 4429;

        static readonly HashSet<int> Final = new HashSet<int> { 1002, 1003, 1007, 1009, 4400, CompanyForbidden, 4409 };
        static readonly HashSet<int> Unspecific = new HashSet<int> { 1000, 1005, BrokenLink };
        static readonly TimeSpan TooManyFloor = TimeSpan.FromSeconds(5);

        public Disconnected(string reason, int? code = null, Exception error = null, bool isFinal = false, TimeSpan floor = default(TimeSpan))
            : base(reason, error)
        {
            Code = code;
            IsFinal = isFinal;
            Floor = floor;
        }

        public int? Code { get; }

        public bool IsFinal { get; }

        public TimeSpan Floor { get; }

        /// <summary>Another attempt needs another token.</summary>
        public bool IsTokenRefused => Code == TokenInvalid || Code == TokenExpired;

        /// <summary>What a close means, together with the `Data` of the `Disconnect` before it, if there was one.</summary>
        public static Disconnected Closed(int? closeCode, string reason, IReadOnlyDictionary<string, object> farewell)
        {
            int code = closeCode ?? BrokenLink;
            bool isFinal = false;
            TimeSpan floor = code == TooMany ? TooManyFloor : TimeSpan.Zero;
            if (farewell != null)
            {
                if (Unspecific.Contains(code)) code = (int)(Properties.Position(farewell, "Code") ?? code);
                isFinal = Properties.Value(farewell, "Reconnect") is bool again && !again;
                if (string.IsNullOrEmpty(reason)) reason = Properties.Text(farewell, "Reason");
                long? wait = Properties.Position(farewell, "RetryAfterMs");
                floor = wait == null ? code == TooMany ? TooManyFloor : floor : TimeSpan.FromMilliseconds(Math.Min(wait.Value, 3600000));
            }
            isFinal |= Final.Contains(code);
            bool needsToken = code == TokenInvalid || code == TokenExpired;
            return new Disconnected(string.IsNullOrEmpty(reason) ? "connection lost" : reason, code, null, isFinal && !needsToken, floor);
        }
    }

    /// <summary>Waiting with a bound.</summary>
    internal static class Within
    {
        /// <summary>Awaits a task, or until the time has passed; returns whether it has ended. Its error is thrown.</summary>
        public static async Task<bool> Time(Task task, TimeSpan limit)
        {
            using (var waiting = new System.Threading.CancellationTokenSource())
            {
                if (await Task.WhenAny(task, Task.Delay(limit, waiting.Token)).ConfigureAwait(false) != task)
                {
                    Forget(task);
                    return false;
                }
                waiting.Cancel();
                await task.ConfigureAwait(false);
                return true;
            }
        }

        /// <summary>Nothing waits for the task: its error is of no interest.</summary>
        public static void Forget(Task task)
        {
            task.ContinueWith(ended => ended.Exception, TaskContinuationOptions.OnlyOnFaulted | TaskContinuationOptions.ExecuteSynchronously);
        }
    }
}
