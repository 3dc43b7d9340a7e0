// What the old server in docs/fleck.md uses of Fleck, which is not among the tests' programs: enough to compile it.

using System;
using System.Threading.Tasks;

namespace Fleck
{
    public interface IWebSocketConnection
    {
        Action OnOpen { get; set; }

        Action OnClose { get; set; }

        Action<string> OnMessage { get; set; }

        Task Send(string message);
    }

    public class WebSocketServer
    {
        public WebSocketServer(string location) { }

        public void Start(Action<IWebSocketConnection> config) { }
    }
}
