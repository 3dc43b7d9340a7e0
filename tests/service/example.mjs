// The example that existing clients were written from; URL, token and company are its arguments.
const [address, token, companyId] = process.argv.slice(2);

const socket = new WebSocket(address);

socket.onopen = () => {
  socket.send(JSON.stringify({ type: "authenticate", token }));
};

socket.onmessage = (event) => {
  const message = JSON.parse(event.data);
  switch (message.Type) {
    case "AuthenticationResult":
      if (message.Success === true) {
        socket.send(JSON.stringify({ type: "setCompany", data: { companyId } }));
      } else {
        console.error("Authentication failed");
      }
      break;
    case "SetCompanyResult":
      console.log("Following", message.Data.CompanyId);
      break;
    case "EventCreated":
      console.log("New event created:", message.Data.EventId);
      break;
  }
};
