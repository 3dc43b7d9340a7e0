using System;
using System.Threading;
using System.Threading.Tasks;

namespace Notifier.Client
{
    /// <summary>The application's tokens: fetched in time, and not presented again once the server has refused them.</summary>
    internal sealed class TokenSource
    {
        readonly Func<CancellationToken, Task<string>> getToken;
        readonly TimeSpan limit;
        volatile Tuple<string, int> refused;

        public TokenSource(Func<CancellationToken, Task<string>> getToken, TimeSpan limit)
        {
            this.getToken = getToken;
            this.limit = limit;
        }

        /// <summary>A token. Throws Disconnected, at the latest after the limit, also where the application's code blocks its thread.</summary>
        public async Task<string> FetchAsync(CancellationToken cancelled)
        {
            using (var late = CancellationTokenSource.CreateLinkedTokenSource(cancelled))
            {
                CancellationToken token = late.Token;
                late.CancelAfter(limit);
                Task<string> fetching = Task.Run(() => getToken(token) ?? Task.FromResult<string>(null));
                var ended = new TaskCompletionSource<bool>();
                using (token.Register(() => ended.TrySetResult(true)))
                {
                    await Task.WhenAny(fetching, ended.Task).ConfigureAwait(false);
                }
                if (!fetching.IsCompleted)
                {
                    Within.Forget(fetching);
                    throw new Disconnected("no token", error: new TimeoutException("the token source did not answer"));
                }
                try
                {
                    string found = await fetching.ConfigureAwait(false);
                    if (string.IsNullOrEmpty(found)) throw new InvalidOperationException("the token source returned no token");
                    return found;
                }
                catch (Exception error)
                {
                    throw new Disconnected("no token", error: error);
                }
            }
        }

        /// <summary>The server has refused this token and closed with the code.</summary>
        public void Refuse(string token, int code)
        {
            refused = Tuple.Create(token, code);
        }

        /// <summary>The server has accepted a token, or the application wants another attempt.</summary>
        public void ForgetRefusal()
        {
            refused = null;
        }

        /// <summary>Throws Disconnected where the server has refused this token.</summary>
        public void Check(string token)
        {
            Tuple<string, int> last = refused;
            if (last == null || last.Item1 != token) return;
            bool isInvalid = last.Item2 == Disconnected.TokenInvalid;
            throw new Disconnected(isInvalid ? "token refused" : "token expired", last.Item2, isFinal: isInvalid);
        }
    }
}
