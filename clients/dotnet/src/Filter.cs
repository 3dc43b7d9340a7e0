using System;
using System.Collections.Generic;
using System.Linq;

namespace Notifier.Client
{
    /// <summary>
    /// Which changes of a company a subscription gets. Immutable: each method returns a new filter.
    /// <code>Filter.Of("Event").Where("Event", "OrganizerId", me, null)</code>
    /// </summary>
    public sealed class Filter
    {
        readonly string[] entities;
        readonly Dictionary<string, object> where;

        Filter(string[] entities, Dictionary<string, object> where)
        {
            this.entities = entities;
            this.where = where;
        }

        /// <summary>All changes.</summary>
        public static Filter All { get; } = new Filter(null, null);

        /// <summary>Only changes of these entities.</summary>
        public static Filter Of(params string[] entities)
        {
            return new Filter((string[])entities.Clone(), null);
        }

        /// <summary>
        /// Of this entity only rows with one of these values, before or after the change; several properties must all pass. `7`
        /// is not `"7"`. Entities without a condition pass whole.
        /// </summary>
        public Filter Where(string entity, string property, params object[] values)
        {
            object[] given = values ?? new object[] { null };
            Json.Write(given); // reports now what cannot be sent
            var all = where == null
                ? new Dictionary<string, object>()
                : where.ToDictionary(pair => pair.Key, pair => (object)new Dictionary<string, object>((Dictionary<string, object>)pair.Value));
            object properties;
            if (!all.TryGetValue(entity, out properties)) all[entity] = properties = new Dictionary<string, object>();
            ((Dictionary<string, object>)properties)[property] = given.ToArray();
            return new Filter(entities, all);
        }

        internal void AddTo(Dictionary<string, object> command)
        {
            if (entities != null) command["entities"] = entities;
            if (where != null) command["where"] = where;
        }

        internal bool IsSameAs(Filter other)
        {
            return ReferenceEquals(this, other) || Text() == other.Text();
        }

        string Text()
        {
            var command = new Dictionary<string, object>();
            AddTo(command);
            return Json.Write(command);
        }
    }
}
