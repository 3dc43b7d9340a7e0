// Prints the messages of a company as they are committed, and `resync` where it would load its state.
//
//     mcs -out:Follow.exe clients/dotnet/src/*.cs clients/dotnet/example/Follow.cs
//     mono Follow.exe ws://127.0.0.1:8181/ COMPANY TOKEN

using System;
using System.Threading.Tasks;
using Notifier.Client;

static class Follow
{
    static int Main(string[] arguments)
    {
        if (arguments.Length != 3)
        {
            Console.Error.WriteLine("usage: Follow URL COMPANY TOKEN");
            return 2;
        }
        return Run(arguments).GetAwaiter().GetResult();
    }

    static async Task<int> Run(string[] arguments)
    {
        var stopped = new TaskCompletionSource<Status>();
        var options = new ClientOptions
        {
            OnStatus = status =>
            {
                Console.Error.WriteLine(status);
                if (status.State == State.Stopped || status.State == State.Idle) stopped.TrySetResult(status);
            },
        };
        using (var client = new NotifierClient(arguments[0], cancelled => Task.FromResult(arguments[2]), options))
        {
            client.Subscribe(arguments[1], new SubscriptionOptions
            {
                OnReload = (reload, cancelled) => Console.Out.WriteLineAsync("resync: " + reload.Reason),
                OnMessage = change => Console.Out.WriteLineAsync(change.Text),
            });
            client.Start();
            Status last = await stopped.Task;
            await client.CloseAsync();
            return last.State == State.Stopped ? 1 : 0;
        }
    }
}
