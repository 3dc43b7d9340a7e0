// What the generated code uses of System.Text.Json, which Mono does not have: enough to run it, on the client's Json.cs.

using System.Collections;
using System.Collections.Generic;
using System.Globalization;
using System.Linq;
using System.Reflection;
using System.Text.Json.Serialization;
using Notifier.Client;

namespace System.Text.Json
{
    public struct JsonElement
    {
        readonly object value;

        internal JsonElement(object value)
        {
            this.value = value;
        }

        public string GetRawText() { return Notifier.Client.Json.Write(value); }

        public string GetString() { return (string)value; }

        public JsonElement GetProperty(string name) { return new JsonElement(((Dictionary<string, object>)value)[name]); }
    }

    public sealed class JsonDocument : IDisposable
    {
        public JsonElement RootElement { get; private set; }

        public static JsonDocument Parse(string json) { return new JsonDocument { RootElement = new JsonElement(Notifier.Client.Json.Parse(json)) }; }

        public void Dispose() { }
    }

    public static class JsonSerializer
    {
        public static T Deserialize<T>(string json) { return (T)Convert(Notifier.Client.Json.Parse(json), typeof(T), null); }

        static object Convert(object value, Type type, MemberInfo member)
        {
            if (type == typeof(JsonElement)) return new JsonElement(value);
            Type plain = Nullable.GetUnderlyingType(type);
            if (value == null && (plain != null || !type.IsValueType)) return null;
            if (plain != null) return Convert(value, plain, member);
            if (type == typeof(string) || type == typeof(bool)) return value;
            if (type == typeof(int) || type == typeof(long) || type == typeof(double) || type == typeof(decimal))
            {
                var handling = (JsonNumberHandlingAttribute)member?.GetCustomAttributes(typeof(JsonNumberHandlingAttribute), false).FirstOrDefault();
                if (value is string && handling == null) throw new FormatException("text in the place of a number");
                return System.Convert.ChangeType(value, type, CultureInfo.InvariantCulture);
            }
            if (value is List<object>)
            {
                var list = (IList)Activator.CreateInstance(type);
                foreach (object each in (List<object>)value) list.Add(Convert(each, type.GetGenericArguments()[0], member));
                return list;
            }
            var properties = (Dictionary<string, object>)value;
            if (typeof(IDictionary).IsAssignableFrom(type))
            {
                var found = (IDictionary)Activator.CreateInstance(type);
                foreach (var pair in properties) found[pair.Key] = Convert(pair.Value, type.GetGenericArguments()[1], member);
                return found;
            }
            object target = Activator.CreateInstance(type);
            foreach (PropertyInfo property in type.GetProperties())
            {
                var named = (JsonPropertyNameAttribute)property.GetCustomAttributes(typeof(JsonPropertyNameAttribute), false).FirstOrDefault();
                object each;
                if (properties.TryGetValue(named == null ? property.Name : named.Name, out each))
                {
                    property.SetValue(target, Convert(each, property.PropertyType, property), null);
                }
            }
            return target;
        }
    }
}

namespace System.Text.Json.Serialization
{
    [Flags]
    public enum JsonNumberHandling { Strict = 0, AllowReadingFromString = 1, AllowNamedFloatingPointLiterals = 4 }

    [AttributeUsage(AttributeTargets.Property)]
    public sealed class JsonNumberHandlingAttribute : Attribute
    {
        public JsonNumberHandlingAttribute(JsonNumberHandling handling) { }
    }

    [AttributeUsage(AttributeTargets.Property)]
    public sealed class JsonPropertyNameAttribute : Attribute
    {
        public JsonPropertyNameAttribute(string name) { Name = name; }

        public string Name { get; private set; }
    }
}
