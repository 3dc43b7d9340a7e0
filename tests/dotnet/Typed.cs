// Runs the example of docs/types.md until its input ends.

using System;
using Notifier.Client;

static class Typed
{
    static void Main(string[] arguments)
    {
        App.Token = arguments[2];
        using (var client = new NotifierClient(arguments[0], App.FetchToken))
        {
            Follower.Follow(client, arguments[1]);
            client.Start();
            Console.In.ReadToEnd();
        }
    }
}
