using System;
using System.Collections;
using System.Collections.Generic;
using System.Globalization;
using System.Text;

namespace Notifier.Client
{
    /// <summary>
    /// Reads and writes JSON (RFC 8259). An object is a Dictionary, an array a List. A number is a long, otherwise a
    /// decimal where that is as exact as a double, otherwise a double.
    /// </summary>
    internal sealed class Json
    {
        const int MaxDepth = 500;

        readonly string text;
        int next;

        Json(string text)
        {
            this.text = text;
        }

        /// <summary>Throws FormatException.</summary>
        public static object Parse(string text)
        {
            var reader = new Json(text);
            object value = reader.Value(0);
            reader.SkipSpace();
            if (reader.next < text.Length) throw reader.Unexpected();
            return value;
        }

        /// <summary>Throws ArgumentException for a value that JSON does not have.</summary>
        public static string Write(object value)
        {
            var target = new StringBuilder();
            Write(target, value);
            return target.ToString();
        }

        object Value(int depth)
        {
            if (depth > MaxDepth) throw new FormatException("JSON that is nested too deeply");
            SkipSpace();
            switch (Peek())
            {
                case '{': return Object(depth);
                case '[': return Array(depth);
                case '"': return String();
                case 't': return Word("true", true);
                case 'f': return Word("false", false);
                case 'n': return Word("null", null);
                default: return Number();
            }
        }

        Dictionary<string, object> Object(int depth)
        {
            var found = new Dictionary<string, object>(StringComparer.Ordinal);
            next++;
            SkipSpace();
            if (Taken('}')) return found;
            do
            {
                SkipSpace();
                string name = String();
                SkipSpace();
                if (!Taken(':')) throw Unexpected();
                found[name] = Value(depth + 1);
                SkipSpace();
            }
            while (Taken(','));
            if (!Taken('}')) throw Unexpected();
            return found;
        }

        List<object> Array(int depth)
        {
            var found = new List<object>();
            next++;
            SkipSpace();
            if (Taken(']')) return found;
            do
            {
                found.Add(Value(depth + 1));
                SkipSpace();
            }
            while (Taken(','));
            if (!Taken(']')) throw Unexpected();
            return found;
        }

        string String()
        {
            if (!Taken('"')) throw Unexpected();
            int start = next;
            while (Peek() != '"' && Peek() != '\\') next++;
            string plain = text.Substring(start, next - start);
            if (Taken('"')) return plain;
            var found = new StringBuilder(plain);
            while (!Taken('"'))
            {
                char letter = Peek();
                next++;
                found.Append(letter == '\\' ? Escaped() : letter);
            }
            return found.ToString();
        }

        char Escaped()
        {
            char letter = Peek();
            next++;
            switch (letter)
            {
                case '"': case '\\': case '/': return letter;
                case 'b': return '\b';
                case 'f': return '\f';
                case 'n': return '\n';
                case 'r': return '\r';
                case 't': return '\t';
                case 'u':
                    int code;
                    if (next + 4 > text.Length
                        || !int.TryParse(text.Substring(next, 4), NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture, out code))
                    {
                        throw Unexpected();
                    }
                    next += 4;
                    return (char)code;
                default: throw Unexpected();
            }
        }

        object Number()
        {
            int start = next;
            while (next < text.Length && "+-.0123456789Ee".IndexOf(text[next]) >= 0) next++;
            string digits = text.Substring(start, next - start);
            long whole;
            if (long.TryParse(digits, NumberStyles.AllowLeadingSign, CultureInfo.InvariantCulture, out whole)) return whole;
            const NumberStyles Style = NumberStyles.AllowLeadingSign | NumberStyles.AllowDecimalPoint | NumberStyles.AllowExponent;
            double nearest;
            if (!double.TryParse(digits, Style, CultureInfo.InvariantCulture, out nearest)) throw Unexpected();
            decimal exact;
            if (!decimal.TryParse(digits, Style, CultureInfo.InvariantCulture, out exact)) return nearest;
            // A decimal has 28 digits behind the point: what is smaller would be rounded, and in the end to zero.
            if (double.Parse(exact.ToString(CultureInfo.InvariantCulture), Style, CultureInfo.InvariantCulture) != nearest) return nearest;
            return exact;
        }

        object Word(string word, object value)
        {
            if (string.CompareOrdinal(text, next, word, 0, word.Length) != 0) throw Unexpected();
            next += word.Length;
            return value;
        }

        void SkipSpace()
        {
            while (next < text.Length && " \t\r\n".IndexOf(text[next]) >= 0) next++;
        }

        char Peek()
        {
            if (next >= text.Length) throw Unexpected();
            return text[next];
        }

        bool Taken(char letter)
        {
            if (next >= text.Length || text[next] != letter) return false;
            next++;
            return true;
        }

        FormatException Unexpected()
        {
            return new FormatException("no JSON at character " + next);
        }

        static void Write(StringBuilder target, object value)
        {
            if (value == null) target.Append("null");
            else if (value is bool) target.Append((bool)value ? "true" : "false");
            else if (value is string) WriteString(target, (string)value);
            else if (value is Guid) WriteString(target, value.ToString());
            else if (value is double || value is float) WriteDouble(target, Convert.ToDouble(value));
            else if (value is IDictionary<string, object>) WriteObject(target, (IDictionary<string, object>)value);
            else if (value is sbyte || value is byte || value is short || value is ushort || value is int || value is uint
                || value is long || value is ulong || value is decimal)
            {
                target.Append(((IFormattable)value).ToString(null, CultureInfo.InvariantCulture));
            }
            else if (value is IEnumerable) WriteArray(target, (IEnumerable)value);
            else throw new ArgumentException("a " + value.GetType() + " is no JSON value: pass text, a number, true, false or null");
        }

        static void WriteDouble(StringBuilder target, double value)
        {
            if (double.IsNaN(value) || double.IsInfinity(value)) throw new ArgumentException("JSON has no NaN and no infinity");
            target.Append(value.ToString("R", CultureInfo.InvariantCulture));
        }

        static void WriteObject(StringBuilder target, IDictionary<string, object> value)
        {
            string separator = "{";
            foreach (var pair in value)
            {
                target.Append(separator);
                WriteString(target, pair.Key);
                target.Append(':');
                Write(target, pair.Value);
                separator = ",";
            }
            target.Append(value.Count == 0 ? "{}" : "}");
        }

        static void WriteArray(StringBuilder target, IEnumerable value)
        {
            target.Append('[');
            bool first = true;
            foreach (object each in value)
            {
                if (!first) target.Append(',');
                Write(target, each);
                first = false;
            }
            target.Append(']');
        }

        static void WriteString(StringBuilder target, string value)
        {
            target.Append('"');
            foreach (char letter in value)
            {
                if (letter == '"' || letter == '\\') target.Append('\\').Append(letter);
                else if (letter < ' ' || char.IsSurrogate(letter)) target.Append("\\u").Append(((int)letter).ToString("x4"));
                else target.Append(letter);
            }
            target.Append('"');
        }
    }
}
