using System;
using System.Collections.Generic;

namespace Notifier.Client
{
    /// <summary>How far a client has got in a company's messages: the last one that it has, and the name of the log.</summary>
    public sealed class LogPosition : IEquatable<LogPosition>
    {
        /// <summary>`at` is the `At` of that message, null if it is not known.</summary>
        public LogPosition(long after, string epoch, string at = null)
        {
            if (after < 0) throw new ArgumentOutOfRangeException(nameof(after));
            After = after;
            Epoch = epoch ?? throw new ArgumentNullException(nameof(epoch));
            At = at;
        }

        /// <summary>The position of the last message.</summary>
        public long After { get; }

        /// <summary>The name of the log: a position means nothing in another one.</summary>
        public string Epoch { get; }

        /// <summary>The `At` of the last message. It proves that client and server have the same one, also after a restore.</summary>
        public string At { get; }

        /// <summary>Whether both are the same message. An `At` that one of them does not know is not compared.</summary>
        public bool Equals(LogPosition other)
        {
            return other != null && After == other.After && Epoch == other.Epoch
                && (At == null || other.At == null || At == other.At);
        }

        /// <inheritdoc/>
        public override bool Equals(object other)
        {
            return Equals(other as LogPosition);
        }

        /// <inheritdoc/>
        public override int GetHashCode()
        {
            return After.GetHashCode() ^ Epoch.GetHashCode();
        }

        /// <inheritdoc/>
        public override string ToString()
        {
            return After + " of " + Epoch;
        }
    }

    /// <summary>What a subscription reports, and the position behind it.</summary>
    public abstract class Report
    {
        internal Report(string company, LogPosition position)
        {
            Company = company;
            Position = position;
        }

        /// <summary>The company, as the application spells it.</summary>
        public string Company { get; }

        /// <summary>Where to resume once this report was handled.</summary>
        public LogPosition Position { get; }
    }

    /// <summary>One committed change of one row.</summary>
    public sealed class RowChange : Report
    {
        readonly IReadOnlyDictionary<string, object> message;

        internal RowChange(string company, LogPosition position, IReadOnlyDictionary<string, object> message, string text)
            : base(company, position)
        {
            this.message = message;
            Text = text;
        }

        /// <summary>The message as it was received: for `Message.Parse` of `notifier types --language csharp`, or any JSON library.</summary>
        public string Text { get; }

        /// <summary>`EventCreated`, for example.</summary>
        public string Type => Properties.Text(message, "Type");

        /// <summary>
        /// The whole row, for a deletion as it last was; only its keys if IsPartial. Values are string, long, decimal, double,
        /// bool, null, and List and Dictionary of them.
        /// </summary>
        public IReadOnlyDictionary<string, object> Data => Properties.Object(message, "Data");

        /// <summary>The former values of exactly the properties that changed; null where there are none.</summary>
        public IReadOnlyDictionary<string, object> Old => Properties.Has(message, "Old") ? Properties.Object(message, "Old") : null;

        /// <summary>The time at which the change was captured, in ISO 8601.</summary>
        public string At => Properties.Text(message, "At");

        /// <summary>The writer's transaction: its `pg_current_xact_id()` in decimal.</summary>
        public string Tx => Properties.Text(message, "Tx");

        /// <summary>Who made the change, where the writing application has named someone; else null.</summary>
        public string Actor => Properties.Text(message, "Actor");

        /// <summary>The row is too large to be sent: read it from your own API.</summary>
        public bool IsPartial => Properties.IsTrue(message, "Partial");
    }

    /// <summary>Messages after the position are complete, earlier ones may not be: reload your state.</summary>
    public sealed class Reload : Report
    {
        internal Reload(string company, LogPosition position, string reason)
            : base(company, position)
        {
            Reason = reason;
        }

        /// <summary>
        /// `start` (there was no position to resume from), `filter` (the subscription has another filter now), `expired` (the
        /// position is beyond the retention), `epoch` (the log was replaced), `gap` (a missing message could not be obtained),
        /// `failed` (OnMessage or OnSkipped threw), `overflow` (too many messages arrived before a failed reload was repeated),
        /// or the server's reason: `bulk`, `truncate`, `overflow`, `epoch`.
        /// </summary>
        public string Reason { get; }
    }

    /// <summary>No message up to the position is for this subscription: its filter or the rows' visibility decided so.</summary>
    public sealed class Skipped : Report
    {
        internal Skipped(string company, LogPosition position)
            : base(company, position)
        {
        }
    }

    /// <summary>Every message after the position follows: nothing was lost.</summary>
    public sealed class Recovered : Report
    {
        internal Recovered(string company, LogPosition position)
            : base(company, position)
        {
        }
    }

    /// <summary>Values in a message. What has another type than expected counts as absent.</summary>
    internal static class Properties
    {
        static readonly Dictionary<string, object> None = new Dictionary<string, object>();

        public static bool Has(IReadOnlyDictionary<string, object> message, string name)
        {
            return message.ContainsKey(name);
        }

        public static object Value(IReadOnlyDictionary<string, object> message, string name)
        {
            object value;
            return message.TryGetValue(name, out value) ? value : null;
        }

        public static string Text(IReadOnlyDictionary<string, object> message, string name)
        {
            return Value(message, name) as string;
        }

        public static bool IsTrue(IReadOnlyDictionary<string, object> message, string name)
        {
            return Value(message, name) is bool flag && flag;
        }

        public static long? Position(IReadOnlyDictionary<string, object> message, string name = "Position")
        {
            return Value(message, name) is long number && number >= 0 ? number : (long?)null;
        }

        public static Dictionary<string, object> Object(IReadOnlyDictionary<string, object> message, string name)
        {
            return Value(message, name) as Dictionary<string, object> ?? None;
        }
    }
}
