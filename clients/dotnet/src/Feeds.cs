using System;
using System.Collections;
using System.Collections.Generic;
using System.Linq;
using System.Text.RegularExpressions;

namespace Notifier.Client
{
    /// <summary>The companies of one client. Used under the gate.</summary>
    internal sealed class Feeds : IEnumerable<Feed>
    {
        static readonly Regex Uuid = new Regex("(?:^|:)[0-9a-f]{32}$", RegexOptions.CultureInvariant);
        static readonly Regex Punctuation = new Regex("[-{} \t\r\n]", RegexOptions.CultureInvariant);

        readonly List<Feed> all = new List<Feed>();

        public int Count => all.Count;

        /// <summary>The user is authenticated: each company has a state of its own.</summary>
        public bool IsOpen { get; set; }

        /// <summary>The state of the connection.</summary>
        public Status Connection { get; set; } = new Status(State.New);

        /// <summary>The connection's state; while it is open that of a company: connecting before live before idle.</summary>
        public Status Status
        {
            get
            {
                if (!IsOpen) return Connection;
                foreach (State state in new[] { State.Connecting, State.Live, State.Idle })
                {
                    Feed feed = all.FirstOrDefault(each => each.Status.State == state);
                    if (feed != null) return feed.Status;
                }
                return Connection;
            }
        }

        /// <summary>Throws ArgumentException if there is one of this company already.</summary>
        public void Add(Feed feed)
        {
            if (Find(feed.Company) != null) throw new ArgumentException("there is a subscription to this company already: " + feed.Company);
            feed.Status = IsOpen ? new Status(State.Connecting, feed.Company) : Connection.For(feed.Company);
            all.Add(feed);
        }

        public void Remove(Feed feed)
        {
            all.Remove(feed);
        }

        /// <summary>The feed of a company as the server spells it; null if there is none.</summary>
        public Feed Find(string company)
        {
            return company == null ? null : all.FirstOrDefault(each => each.Company == company) ?? all.FirstOrDefault(each => IsSame(each.Company, company));
        }

        /// <summary>The state of the connection, and of each company, has changed.</summary>
        public void Report(Status status)
        {
            IsOpen = false;
            Connection = status;
            foreach (Feed feed in all) feed.Status = status.For(feed.Company);
        }

        /// <summary>No arrival will be reported any more.</summary>
        public void Fail(string reason)
        {
            foreach (Feed feed in all) feed.Fail(reason);
        }

        /// <summary>Whether two ids are equal; the server may spell a uuid differently than the client did.</summary>
        public static bool IsSame(string one, string other)
        {
            if (one == other) return true;
            string plain = Plain(one);
            return Uuid.IsMatch(plain) && plain == Plain(other);
        }

        public IEnumerator<Feed> GetEnumerator()
        {
            return all.GetEnumerator();
        }

        IEnumerator IEnumerable.GetEnumerator()
        {
            return GetEnumerator();
        }

        static string Plain(string company)
        {
            return Punctuation.Replace(company.ToLowerInvariant(), "");
        }
    }
}
