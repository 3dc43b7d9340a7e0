// What the generated code uses of System.Text.Json, which Mono does not bring.

namespace System.Text.Json
{
    public struct JsonElement
    {
        public string GetRawText() { return null; }
        public string GetString() { return null; }
        public JsonElement GetProperty(string name) { return this; }
    }

    public sealed class JsonDocument : IDisposable
    {
        public static JsonDocument Parse(string json) { return null; }
        public JsonElement RootElement { get { return default(JsonElement); } }
        public void Dispose() { }
    }

    public static class JsonSerializer
    {
        public static T Deserialize<T>(string json) { return default(T); }
    }
}

namespace System.Text.Json.Serialization
{
    [Flags]
    public enum JsonNumberHandling { Strict = 0, AllowReadingFromString = 1, AllowNamedFloatingPointLiterals = 4 }

    public sealed class JsonNumberHandlingAttribute : Attribute
    {
        public JsonNumberHandlingAttribute(JsonNumberHandling handling) { }
    }

    public sealed class JsonPropertyNameAttribute : Attribute
    {
        public JsonPropertyNameAttribute(string name) { }
    }
}
