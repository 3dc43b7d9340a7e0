// What an application may write with the generated types: Mono's compiler checks it.

using Notifier.Messages;

public static class Consumer
{
    public static string Receive(string text)
    {
        var message = Message.Parse(text);
        if (message is InvoiceSaved saved && !saved.Partial)
        {
            InvoiceRow row = saved.Data;
            long id = row.InvoiceId;
            decimal total = row.Total;
            double? ratio = row.Ratio;
            bool? isChecked = row.Checked;
            int? minutes = row.Route[0].Minutes;
            return row.Mood + row._2ndName + row.Ship.Street + row.Grid[0][0] + id + total + ratio + isChecked + minutes
                + saved.Old["Total"].GetRawText();
        }
        var resync = message as Resync;
        return resync == null ? message.At : resync.Data.Epoch;
    }
}
