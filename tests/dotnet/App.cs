// The application that the documentation's examples call.

using System;
using System.Collections.Generic;
using System.Threading;
using System.Threading.Tasks;
using Notifier.Client;

public static class App
{
    public static string Token = "none";

    public static IDictionary<string, string> ReadJson(string text) { return new Dictionary<string, string>(); }

    public static string WriteJson(object value) { return value.ToString(); }

    public static string UserOf(string token) { return token; }

    public static bool IsMember(string user, string company) { return user != null && company != null; }

    public static Task<string> FetchToken(CancellationToken cancelled) { return Task.FromResult(Token); }

    public static Task<string> LoadAppointments(string company, CancellationToken cancelled) { return Task.FromResult(company); }

    public static LogPosition SavedPosition(string company) { return company == null ? new LogPosition(1, "e") : null; }

    public static Task<string> Save(string title) { return Task.FromResult(title); }

    public static Task Load(string company, CancellationToken cancelled) { return Print("load " + company); }

    public static Task LoadEvent(string eventId) { return Print("load event " + eventId); }

    public static Task Apply(string type, IReadOnlyDictionary<string, object> data, LogPosition position) { return Print(type + data.Count + position); }

    public static Task Show(string title, string startsAt, bool allDay) { return Print("show " + title + " at " + startsAt + " " + allDay); }

    public static void Show(string state) { Console.Out.WriteLine(state); }

    public static void Add(IReadOnlyDictionary<string, object> row) { Console.Out.WriteLine(row.Count); }

    public static void Remove(string id) { Console.Out.WriteLine(id); }

    static Task Print(string line)
    {
        Console.Out.WriteLine(line);
        return Console.Out.FlushAsync();
    }
}
