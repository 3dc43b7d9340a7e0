using System;

namespace Notifier.Client
{
    /// <summary>The state of a connection, or of one company on it.</summary>
    public enum State
    {
        /// <summary>The client was not started.</summary>
        New,

        /// <summary>Fetching a token, opening a socket, or waiting for the answer to a subscription.</summary>
        Connecting,

        /// <summary>Messages arrive as they are committed.</summary>
        Live,

        /// <summary>Not connected; the next attempt is after RetryIn.</summary>
        Waiting,

        /// <summary>
        /// Connected without a company: it was refused, or access to it was revoked. Reason is `no company`, `revoked`, or the
        /// code of the refusal: `company_forbidden`, `bad_filter`, `too_many_companies`.
        /// </summary>
        Idle,

        /// <summary>The client does not reconnect by itself: the token was refused or the client is at fault. Reconnect tries again.</summary>
        Stopped,

        /// <summary>The client was closed, or the company left.</summary>
        Closed,
    }

    /// <summary>The state of one company, or of the connection (Company is null), and why.</summary>
    public sealed class Status
    {
        internal Status(State state, string company = null, string reason = null, int? code = null, Exception error = null, TimeSpan? retryIn = null)
        {
            State = state;
            Company = company;
            Reason = reason;
            Code = code;
            Error = error;
            RetryIn = retryIn;
        }

        /// <summary>The state.</summary>
        public State State { get; }

        /// <summary>The company that this concerns; null: all of them.</summary>
        public string Company { get; }

        /// <summary>In words, or a code of the protocol; null if there is none.</summary>
        public string Reason { get; }

        /// <summary>The close code, 1006 if the link broke.</summary>
        public int? Code { get; }

        /// <summary>The exception behind it: that of the token source or of a callback, for example.</summary>
        public Exception Error { get; }

        /// <summary>How long the client waits before the next attempt.</summary>
        public TimeSpan? RetryIn { get; }

        internal Status For(string company)
        {
            return new Status(State, company, Reason, Code, Error, RetryIn);
        }

        /// <inheritdoc/>
        public override string ToString()
        {
            string company = Company == null ? "" : Company + ": ";
            string reason = Reason == null ? "" : " (" + Reason + ")";
            return company + State.ToString().ToLowerInvariant() + reason + (Error == null ? "" : ": " + Error.GetBaseException().Message);
        }
    }

    /// <summary>It is not known whether a transaction's messages have arrived.</summary>
    public sealed class ArrivalException : Exception
    {
        internal const string NotSubscribed = "not_subscribed";

        internal ArrivalException(string code, string message)
            : base(message)
        {
            Code = code;
        }

        /// <summary>
        /// `unknown_tx` (no transaction has this number yet), `timeout` (it is still running after 10 seconds), or
        /// `not_subscribed` (the subscription was refused, revoked or left, or the client stopped).
        /// </summary>
        public string Code { get; }
    }
}
