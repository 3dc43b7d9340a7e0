using System;
using System.Collections.Generic;
using System.Diagnostics;
using System.IO;
using System.Net.WebSockets;
using System.Text;
using System.Threading;
using System.Threading.Tasks;

namespace Notifier.Client
{
    /// <summary>One socket from `authenticate` to its end, for the companies of one client.</summary>
    internal sealed class Conversation
    {
        static readonly TimeSpan Farewell = TimeSpan.FromSeconds(1);
        static readonly TimeSpan Steady = TimeSpan.FromSeconds(5);
        static readonly UTF8Encoding Utf8 = new UTF8Encoding(false, true);

        /// <summary>Bytes of a message: more are not collected. The server's messages are far smaller.</summary>
        const int MaxMessage = 16 * 1024 * 1024;

        readonly object gate;
        readonly ClientWebSocket socket;
        readonly ClientOptions options;
        readonly Dispatcher dispatcher;
        readonly TokenSource tokens;
        readonly Backoff backoff;
        readonly Deadlines deadlines;
        readonly Queue<string> outbox = new Queue<string>();
        readonly CancellationTokenSource stop = new CancellationTokenSource();
        readonly TaskCompletionSource<Disconnected> ended =
            new TaskCompletionSource<Disconnected>(TaskCreationOptions.RunContinuationsAsynchronously);
        Task sending = Task.FromResult(true);
        bool isSending, isAuthenticated, isRenewing;
        Stopwatch renewed;
        int renewals; // in a row, each soon after the one before
        string token;
        Dictionary<string, object> farewell; // the `Data` of `Disconnect`

        public Conversation(
            object gate, ClientWebSocket socket, string token, ClientOptions options, Feeds feeds, Dispatcher dispatcher, TokenSource tokens, Backoff backoff)
        {
            this.gate = gate;
            this.socket = socket;
            this.token = token;
            this.options = options;
            this.dispatcher = dispatcher;
            this.tokens = tokens;
            this.backoff = backoff;
            deadlines = new Deadlines(gate, options, () => Send("ping", null), Drop);
            Companies = new Companies(feeds, dispatcher, deadlines, Send);
        }

        /// <summary>To be used under the gate.</summary>
        public Companies Companies { get; }

        /// <summary>Ends the connection. Called under the gate.</summary>
        public void Drop(Disconnected end)
        {
            ended.TrySetResult(end);
        }

        /// <summary>Converses until the socket ends, and returns why.</summary>
        public async Task<Disconnected> RunAsync()
        {
            lock (gate)
            {
                Enqueue(Json.Write(new Dictionary<string, object> { { "type", "authenticate" }, { "token", token } }));
                deadlines.ExpectAnswer();
            }
            Disconnected end;
            try
            {
                end = await ReceiveAllAsync().ConfigureAwait(false);
            }
            catch (Disconnected found)
            {
                end = found;
            }
            catch (Exception error) // of a socket that was aborted Mono throws many types
            {
                end = Closed(Disconnected.BrokenLink, null, error);
            }
            lock (gate)
            {
                Companies.End();
                deadlines.Dispose();
                outbox.Clear();
                stop.Cancel();
            }
            await LeaveAsync().ConfigureAwait(false);
            return end;
        }

        async Task<Disconnected> ReceiveAllAsync()
        {
            while (true)
            {
                await PauseAsync().ConfigureAwait(false);
                Task<string> receiving = ReceiveAsync();
                if (await Task.WhenAny(receiving, ended.Task).ConfigureAwait(false) != receiving)
                {
                    Within.Forget(receiving);
                    return ended.Task.Result;
                }
                string text = await receiving.ConfigureAwait(false);
                if (ended.Task.IsCompleted) return ended.Task.Result;
                if (text == null) return Closed((int?)socket.CloseStatus ?? Disconnected.BrokenLink, socket.CloseStatusDescription, null);
                lock (gate)
                {
                    if (isAuthenticated) deadlines.MarkAlive();
                    Receive(text);
                }
            }
        }

        /// <summary>Stops reading until the application has handled reports. No deadline applies meanwhile.</summary>
        async Task PauseAsync()
        {
            Task room;
            lock (gate)
            {
                room = dispatcher.Room;
                if (room.IsCompleted) return;
                deadlines.Pause();
            }
            await Task.WhenAny(room, ended.Task).ConfigureAwait(false);
            lock (gate)
            {
                if (isAuthenticated) deadlines.MarkAlive();
                if (Companies.AwaitsAnswer) deadlines.ExpectResult();
                else if (farewell != null) deadlines.ExpectClose(() => Closed(Disconnected.BrokenLink, null, null));
                else if (!isAuthenticated) deadlines.ExpectAnswer();
            }
        }

        /// <summary>The next text; null when the socket is closed.</summary>
        async Task<string> ReceiveAsync()
        {
            var buffer = new ArraySegment<byte>(new byte[16384]);
            var bytes = new MemoryStream();
            while (true)
            {
                WebSocketReceiveResult result = await socket.ReceiveAsync(buffer, CancellationToken.None).ConfigureAwait(false);
                if (result.MessageType == WebSocketMessageType.Close) return null;
                bytes.Write(buffer.Array, 0, result.Count);
                if (bytes.Length > MaxMessage) throw Unreadable(null);
                if (!result.EndOfMessage) continue;
                try
                {
                    return Utf8.GetString(bytes.GetBuffer(), 0, (int)bytes.Length);
                }
                catch (ArgumentException error)
                {
                    throw Unreadable(error);
                }
            }
        }

        Disconnected Unreadable(Exception error)
        {
            lock (gate) Companies.CountFailure();
            return new Disconnected("unreadable message", error: error);
        }

        void Send(string type, Dictionary<string, object> data)
        {
            var command = new Dictionary<string, object> { { "type", type } };
            if (data != null) command["data"] = data;
            Enqueue(Json.Write(command));
        }

        void Enqueue(string text)
        {
            outbox.Enqueue(text);
            if (isSending || stop.IsCancellationRequested) return;
            isSending = true;
            sending = Task.Run(SendAllAsync);
        }

        async Task SendAllAsync()
        {
            try
            {
                while (true)
                {
                    string text;
                    lock (gate)
                    {
                        if (outbox.Count == 0)
                        {
                            isSending = false;
                            return;
                        }
                        text = outbox.Dequeue();
                    }
                    var bytes = new ArraySegment<byte>(Utf8.GetBytes(text));
                    await socket.SendAsync(bytes, WebSocketMessageType.Text, true, CancellationToken.None).ConfigureAwait(false);
                }
            }
            catch (Exception)
            {
                // The socket has ended: the reader finds the close code, or the deadline drops the link. No further text is sent.
            }
        }

        /// <summary>Closes the socket if it is still open, without waiting for the server's close.</summary>
        async Task LeaveAsync()
        {
            try
            {
                if (socket.State == WebSocketState.Open && await Within.Time(sending, Farewell).ConfigureAwait(false))
                {
                    Task closing = socket.CloseOutputAsync(WebSocketCloseStatus.NormalClosure, "", CancellationToken.None);
                    await Within.Time(closing, Farewell).ConfigureAwait(false);
                }
            }
            catch (Exception)
            {
                // It has ended by itself.
            }
            socket.Abort();
            socket.Dispose();
        }

        Disconnected Closed(int code, string reason, Exception error)
        {
            lock (gate)
            {
                Disconnected end = Disconnected.Closed(code, reason, farewell);
                if (end.IsTokenRefused) tokens.Refuse(token, end.Code.Value);
                bool isFinal = end.Code == Disconnected.CompanyForbidden ? Companies.RefuseFirst() : end.IsFinal;
                return new Disconnected(end.Message, end.Code, error, isFinal, end.Floor);
            }
        }

        /// <summary>Handles one message, under the gate. Throws Disconnected where the connection is of no use any more.</summary>
        void Receive(string text)
        {
            Dictionary<string, object> message;
            try
            {
                message = Json.Parse(text) as Dictionary<string, object>;
            }
            catch (FormatException error)
            {
                throw Unreadable(error);
            }
            if (message == null) return;
            switch (Properties.Text(message, "Type"))
            {
                case "AuthenticationResult":
                    Authenticated(message);
                    break;
                case "TokenExpiring":
                    if (isRenewing) break;
                    isRenewing = true;
                    Within.Forget(Task.Run(RenewAsync));
                    break;
                case "Disconnect":
                    farewell = Properties.Object(message, "Data");
                    deadlines.ExpectClose(() => Closed(Disconnected.BrokenLink, null, null));
                    break;
                default:
                    Companies.Receive(message, text);
                    break;
            }
        }

        void Authenticated(Dictionary<string, object> message)
        {
            if (!Properties.IsTrue(message, "Success"))
            {
                // The close that follows decides what to do; this is used if the close is lost.
                Dictionary<string, object> error = Properties.Object(message, "Error");
                long code = Properties.Text(error, "Code") == "token_expired" ? Disconnected.TokenExpired : Disconnected.TokenInvalid;
                farewell = farewell ?? new Dictionary<string, object> { { "Code", code }, { "Reason", Properties.Text(error, "Message") } };
                deadlines.ExpectClose(() => Closed(Disconnected.BrokenLink, null, null));
                return;
            }
            tokens.ForgetRefusal();
            if (isAuthenticated) return; // the token was renewed
            isAuthenticated = true;
            deadlines.EndWait();
            deadlines.MarkAlive();
            backoff.ExpectToLast();
            Companies.Open();
        }

        /// <summary>
        /// Sends a new token on the open socket, as soon as there is one. After a renewal just now it waits: where clocks
        /// differ, each new token is about to expire.
        /// </summary>
        async Task RenewAsync()
        {
            if (renewed == null || renewed.Elapsed > Steady) renewals = 0;
            else await Task.Delay(backoff.Delay(renewals++) + options.MinDelay, stop.Token).ConfigureAwait(false);
            for (int failures = 0; !stop.IsCancellationRequested; failures++)
            {
                string next = null;
                try
                {
                    next = await tokens.FetchAsync(stop.Token).ConfigureAwait(false);
                }
                catch (Disconnected)
                {
                    // Again after a while; if there is none in time, the server closes with 4419.
                }
                lock (gate)
                {
                    if (stop.IsCancellationRequested) return;
                    if (next != null && next != token)
                    {
                        token = next;
                        isRenewing = false;
                        renewed = Stopwatch.StartNew();
                        Enqueue(Json.Write(new Dictionary<string, object> { { "type", "authenticate" }, { "token", token } }));
                        return;
                    }
                }
                await Task.Delay(backoff.Delay(failures) + options.MinDelay, stop.Token).ConfigureAwait(false);
            }
        }
    }
}
