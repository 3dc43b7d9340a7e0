// A client that the tests drive: it reads commands from stdin, a line each, and prints what is called back.
//
//     mono Driver.exe URL COMPANY TOKEN
//
// TOKEN is made another one for each connection, as `notifier conformance` wants it; `@FILE` is read for each one.

using System;
using System.Collections.Generic;
using System.Globalization;
using System.IO;
using System.Linq;
using System.Threading;
using System.Threading.Tasks;
using Notifier.Client;

sealed class Driver
{
    readonly Dictionary<string, Subscription> subscriptions = new Dictionary<string, Subscription>();
    readonly NotifierClient client;
    readonly string token;
    volatile bool closesInCallback, printsValues;
    int tokens, running, failures, reloadFailures, tokenFailures, holds;
    TaskCompletionSource<bool> held = new TaskCompletionSource<bool>();

    Driver(string url, string token)
    {
        this.token = token;
        var options = new ClientOptions { OnStatus = Report };
        client = new NotifierClient(url, cancelled => Task.FromResult(Token()), options);
    }

    static int Main(string[] arguments)
    {
        var driver = new Driver(arguments[0], arguments[2]);
        driver.Subscribe(arguments[1], Filter.All);
        driver.client.Start();
        string line;
        while ((line = Console.In.ReadLine()) != null) driver.Execute(line.Split(' '));
        Thread.Sleep(Timeout.Infinite); // as `notifier conformance` has no commands
        return 0;
    }

    string Token()
    {
        if (Interlocked.Decrement(ref tokenFailures) >= 0) throw new IOException("no token today");
        return token.StartsWith("@") ? File.ReadAllText(token.Substring(1)).Trim() : token + "-" + Interlocked.Increment(ref tokens);
    }

    void Execute(string[] words)
    {
        string company = words.Length > 1 ? words[1] : null;
        switch (words[0])
        {
            case "subscribe": Subscribe(company, Condition(words)); break;
            case "filter": subscriptions[company].SetFilter(Condition(words)); break;
            case "unsubscribe": subscriptions[company].Unsubscribe(); break;
            case "position": Print("position " + company + " " + (subscriptions[company].Position?.After.ToString() ?? "none")); break;
            case "arrived": Arrived(company, words[2]); break;
            case "fail": failures = int.Parse(words[1]); break;
            case "fail-reload": reloadFailures = int.Parse(words[1]); break;
            case "fail-token": tokenFailures = int.Parse(words[1]); break;
            case "hold": holds = 1; break;
            case "release": held.TrySetResult(true); break;
            case "reconnect": client.Reconnect(); break;
            case "close-in-callback": closesInCallback = true; break;
            case "values": printsValues = true; break;
            case "storm": Storm(company); break;
            case "dispose": client.Dispose(); Print("disposed"); break;
            case "close": client.CloseAsync().Wait(); Print("closed"); break;
            default: throw new ArgumentException(words[0]);
        }
    }

    static Filter Condition(string[] words)
    {
        return words.Length < 5 ? Filter.All : Filter.All.Where(words[2], words[3], string.Join(" ", words.Skip(4)));
    }

    void Subscribe(string company, Filter filter)
    {
        subscriptions[company] = client.Subscribe(company, new SubscriptionOptions
        {
            Filter = filter,
            OnMessage = change => Alone(() =>
            {
                if (Interlocked.Decrement(ref failures) >= 0) throw new InvalidOperationException("of the application");
                Print(change.Text);
                if (printsValues) PrintValues(change.Data);
                if (!closesInCallback) return;
                client.CloseAsync().Wait();
                Print("closed in the callback");
                throw new InvalidOperationException("after the close");
            }),
            OnReload = async (reload, cancelled) =>
            {
                if (Interlocked.Exchange(ref holds, 0) == 1)
                {
                    Print("holding " + reload.Company);
                    await held.Task;
                }
                await Alone(() =>
                {
                    if (Interlocked.Decrement(ref reloadFailures) >= 0) throw new IOException("of the reload");
                    Print("resync: " + reload.Reason + " " + reload.Company + " " + reload.Position.After);
                });
            },
            OnSkipped = skipped => Alone(() => Print("skipped " + skipped.Company + " " + skipped.Position.After)),
            OnRecovered = recovered => Alone(() => Print("recovered " + recovered.Company + " " + recovered.Position.After)),
        });
    }

    // Waits for an arrival without keeping the commands.
    async void Arrived(string company, string tx)
    {
        try
        {
            long position = await subscriptions[company].ArrivedAsync(tx);
            Print("arrived " + tx + " " + position);
        }
        catch (ArrivalException error)
        {
            Print("not arrived " + tx + " " + error.Code);
        }
    }

    // Uses the client from many threads at the same time.
    void Storm(string company)
    {
        Parallel.For(0, 200, number =>
        {
            Subscription mine = subscriptions[company];
            if (number % 50 == 0) client.Reconnect();
            else if (number % 3 == 0) mine.SetFilter(number % 2 == 0 ? Filter.All : Filter.Of("Event"));
            else if (mine.Position == null || mine.Status == null || client.Status == null) Thread.Yield();
        });
        subscriptions[company].SetFilter(Filter.All);
        Print("stormed");
    }

    void Report(Status status)
    {
        Alone(() => Print("status " + status)).Wait();
    }

    // Runs a callback, and reports one that runs at the same time.
    async Task Alone(Action callback)
    {
        if (Interlocked.Increment(ref running) != 1) Print("CONCURRENT");
        try
        {
            await Task.Yield();
            callback();
        }
        finally
        {
            Interlocked.Decrement(ref running);
        }
    }

    static void PrintValues(IReadOnlyDictionary<string, object> data)
    {
        foreach (var pair in data)
        {
            object value = pair.Value;
            string text = value is double ? ((double)value).ToString("R", CultureInfo.InvariantCulture) : Convert.ToString(value, CultureInfo.InvariantCulture);
            Print("value " + pair.Key + " " + value.GetType().Name + " " + text);
        }
    }

    static void Print(string line)
    {
        lock (Console.Out)
        {
            Console.Out.Write(line + "\n");
            Console.Out.Flush();
        }
    }
}
