// A client of Notifier in C#, without packages: .NET, or Mono 6. It implements docs/protocol.md.
//
//     mcs -r:System.Runtime.Serialization -r:System.Xml.Linq examples/Listen.cs
//     mono examples/Listen.exe ws://127.0.0.1:8181/ COMPANY TOKEN
//
// Prints the company's messages as they are committed, reconnects by itself, and misses none. `@FILE` instead of
// TOKEN names a file with the token, which is read for each connection.

using System;
using System.Collections.Generic;
using System.Globalization;
using System.IO;
using System.Linq;
using System.Net.WebSockets;
using System.Runtime.Serialization.Json;
using System.Text;
using System.Threading;
using System.Threading.Tasks;
using System.Xml;
using System.Xml.Linq;

class Listen
{
    static readonly HashSet<int> Final = new HashSet<int> { 1002, 1003, 1007, 1009, 4400, 4403, 4409 };
    static readonly HashSet<int> Unspecific = new HashSet<int> { 1000, 1005, 1006 };
    const int TokenInvalid = 4401, TokenExpired = 4419, BrokenLink = 1006;
    const int HeartbeatSeconds = 15, TimeoutSeconds = 10, MaxGapRetries = 3, MaxWaitMs = 3600000;

    readonly Uri url;
    readonly string company, secret;
    readonly Random random = new Random();

    // The last message that was received: no epoch until the server has named one.
    long position;
    string epoch, at;
    int failures, gapRetries;
    string refusedToken;
    string token; // of this socket

    Listen(string url, string company, string secret)
    {
        this.url = new Uri(url);
        this.company = company;
        this.secret = secret;
    }

    static void Main(string[] arguments)
    {
        if (arguments.Length != 3)
        {
            Console.Error.WriteLine("usage: Listen URL COMPANY TOKEN|@FILE");
            Environment.Exit(2);
        }
        new Listen(arguments[0], arguments[1], arguments[2]).Run().GetAwaiter().GetResult();
    }

    async Task Run()
    {
        while (true)
        {
            XElement farewell = null;
            int code = BrokenLink;
            token = ReadToken();
            if (token != refusedToken)
            {
                try
                {
                    code = await Converse(data => farewell = data);
                }
                catch (Exception error) // of the link, or of a message of a broken server
                {
                    Console.Error.WriteLine("the connection ended: " + error.GetBaseException().Message);
                }
            }
            if (Unspecific.Contains(code)) code = (int)Number(farewell, "Code", code);
            if (code == TokenInvalid) Stop("the token was refused");
            if (code == TokenExpired) refusedToken = token;
            else if (Final.Contains(code) || Text(farewell, "Reconnect") == "false") Stop("closed with " + code);
            double wait = Math.Max(0, Math.Min(MaxWaitMs, Number(farewell, "RetryAfterMs", 0)));
            wait += random.NextDouble() * Math.Min(30_000, 1000 * Math.Pow(2, Math.Min(failures++, 10)));
            Console.Error.WriteLine("closed with {0}, next attempt in {1:0} ms", code, wait);
            await Task.Delay((int)wait);
        }
    }

    static void Stop(string reason)
    {
        Console.Error.WriteLine(reason);
        Environment.Exit(1);
    }

    string ReadToken()
    {
        return secret.StartsWith("@") ? File.ReadAllText(secret.Substring(1)).Trim() : secret;
    }

    // One socket from the handshake to its end. Returns the close code.
    async Task<int> Converse(Action<XElement> onDisconnect)
    {
        using (var socket = new ClientWebSocket())
        {
            await InTime(socket.ConnectAsync(url, CancellationToken.None), TimeoutSeconds);
            await Send(socket, "authenticate", new XElement("token", token));
            DateTime since = DateTime.UtcNow;
            bool following = false, subscribing = false;
            while (true)
            {
                string text = await Receive(socket, following && !subscribing ? HeartbeatSeconds : TimeoutSeconds);
                if (text == null) return (int?)socket.CloseStatus ?? BrokenLink;
                if (DateTime.UtcNow - since > TimeSpan.FromSeconds(HeartbeatSeconds)) failures = 0;

                XElement message = Parse(text), data = message.Element("Data");
                bool success = Text(message, "Success") == "true";
                switch (Text(message, "Type"))
                {
                    case "AuthenticationResult":
                        if (success && !following && !subscribing) subscribing = await Subscribe(socket);
                        break;
                    case "SetCompanyResult":
                        if (!success)
                        {
                            if (Text(message.Element("Error"), "Code") == "company_forbidden") Stop("no such company for this user");
                            return BrokenLink; // reconnect and try again
                        }
                        subscribing = false;
                        following = true;
                        if (Text(data, "Recovered") != "true")
                        {
                            if (epoch != null) Resync(gapRetries > MaxGapRetries ? "gap" : epoch == Text(data, "Epoch") ? "expired" : "epoch");
                            MoveTo(data, Text(data, "Epoch"), Text(data, "At"));
                        }
                        Console.Error.WriteLine("following after {0} of {1}", position, epoch);
                        break;
                    case "TokenExpiring":
                        string next = ReadToken();
                        if (next != token) await Send(socket, "authenticate", new XElement("token", token = next));
                        break;
                    case "CompanyRevoked":
                        Stop("access to the company was revoked");
                        break;
                    case "Disconnect":
                        onDisconnect(data);
                        break;
                    case "Error":
                        Console.Error.WriteLine("error: " + text);
                        break;
                    default:
                        if (!following || subscribing || message.Element("Position") == null) break;
                        bool resync = Text(message, "Type") == "Resync";
                        long offset = (long)message.Element("Position") - position;
                        if (resync && Text(data, "Epoch") != epoch || resync && offset >= 0)
                        {
                            MoveTo(message, Text(data, "Epoch"), Text(message, "At"));
                            Resync(Text(data, "Reason"));
                        }
                        else if (Text(message, "Type") == "Skipped" && offset > 0) // changes that this user may not see
                        {
                            MoveTo(message, epoch, Text(message, "At"));
                        }
                        else if (offset > 1) // a gap
                        {
                            gapRetries++;
                            subscribing = await Subscribe(socket);
                        }
                        else if (offset == 1) // otherwise a duplicate
                        {
                            MoveTo(message, epoch, Text(message, "At"));
                            Console.WriteLine(text.Replace('\r', ' ').Replace('\n', ' '));
                        }
                        break;
                }
            }
        }
    }

    void MoveTo(XElement message, string newEpoch, string newAt)
    {
        position = (long)message.Element("Position");
        epoch = newEpoch;
        at = newAt;
        gapRetries = 0;
    }

    async Task<bool> Subscribe(ClientWebSocket socket)
    {
        var data = new XElement("data", new XElement("companyId", company));
        if (epoch != null && gapRetries <= MaxGapRetries)
        {
            data.Add(new XElement("after", new XAttribute("type", "number"), position), new XElement("epoch", epoch));
            if (at != null) data.Add(new XElement("at", at));
        }
        data.SetAttributeValue("type", "object");
        await Send(socket, "setCompany", data);
        return true;
    }

    // An application would reload its state here.
    static void Resync(string reason)
    {
        Console.WriteLine("resync: " + reason);
    }

    static Task Send(ClientWebSocket socket, string type, XElement content)
    {
        var message = new XElement("root", new XAttribute("type", "object"), new XElement("type", type), content);
        var stream = new MemoryStream();
        using (var writer = JsonReaderWriterFactory.CreateJsonWriter(stream)) message.Save(writer);
        return socket.SendAsync(new ArraySegment<byte>(stream.ToArray()), WebSocketMessageType.Text, true, CancellationToken.None);
    }

    // The next text; null when the socket is closed. Sends a ping after that many seconds of silence.
    static async Task<string> Receive(ClientWebSocket socket, int seconds)
    {
        var buffer = new ArraySegment<byte>(new byte[65536]);
        var bytes = new MemoryStream();
        bool pinged = false;
        while (true)
        {
            Task<WebSocketReceiveResult> receiving = socket.ReceiveAsync(buffer, CancellationToken.None);
            while (await Task.WhenAny(receiving, Task.Delay(1000 * (pinged ? TimeoutSeconds : seconds))) != receiving)
            {
                if (pinged) throw new TimeoutException("silent link");
                pinged = true;
                await Send(socket, "ping", null);
            }
            WebSocketReceiveResult result = await receiving;
            if (result.MessageType == WebSocketMessageType.Close) return null;
            bytes.Write(buffer.Array, 0, result.Count);
            if (result.EndOfMessage) return Encoding.UTF8.GetString(bytes.ToArray());
        }
    }

    static async Task InTime(Task task, int seconds)
    {
        if (await Task.WhenAny(task, Task.Delay(1000 * seconds)) != task) throw new TimeoutException("no answer");
        await task;
    }

    // JSON as XML: an element for each property, see the documentation of JsonReaderWriterFactory.
    static XElement Parse(string json)
    {
        byte[] bytes = Encoding.UTF8.GetBytes(json);
        using (var reader = JsonReaderWriterFactory.CreateJsonReader(bytes, XmlDictionaryReaderQuotas.Max)) return XElement.Load(reader);
    }

    static string Text(XElement parent, string name)
    {
        return parent?.Element(name)?.Value;
    }

    static double Number(XElement parent, string name, double otherwise)
    {
        double found;
        bool isNumber = double.TryParse(Text(parent, name), NumberStyles.Float, CultureInfo.InvariantCulture, out found);
        return isNumber && !double.IsNaN(found) ? found : otherwise;
    }
}
