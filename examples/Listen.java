// A client of Notifier in Java 17 or newer, without packages. It implements docs/protocol.md.
//
//     java examples/Listen.java ws://127.0.0.1:8181/ COMPANY TOKEN
//
// Prints the company's messages as they are committed, reconnects by itself, and misses none. `@FILE` instead of
// TOKEN names a file with the token, which is read for each connection.

import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.WebSocket;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.CompletionStage;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.ThreadLocalRandom;
import java.util.concurrent.TimeUnit;

public class Listen {
    static final Set<Integer> FINAL = Set.of(1002, 1003, 1007, 1009, 4400, 4403, 4409);
    static final Set<Integer> UNSPECIFIC = Set.of(1000, 1005, 1006);
    static final int TOKEN_INVALID = 4401, TOKEN_EXPIRED = 4419, BROKEN_LINK = 1006;
    static final long MAX_WAIT_MS = 3_600_000; // whatever the server requests
    static final int HEARTBEAT_SECONDS = 15, TIMEOUT_SECONDS = 10, MAX_GAP_RETRIES = 3;

    /** A text that was received, or the close code of the socket. */
    record Received(String text, int code) {}

    final HttpClient http = HttpClient.newHttpClient();
    final String url, company, secret;

    /** The last message that was received: null until the server has named one. */
    Long position;
    String epoch, at;
    int failures, gapRetries;
    String refusedToken;
    String token; // of this socket

    Listen(String url, String company, String secret) {
        this.url = url;
        this.company = company;
        this.secret = secret;
    }

    public static void main(String[] arguments) throws Exception {
        if (arguments.length != 3) {
            System.err.println("usage: java Listen.java URL COMPANY TOKEN|@FILE");
            System.exit(2);
        }
        new Listen(arguments[0], arguments[1], arguments[2]).run();
    }

    void run() throws Exception {
        while (true) {
            Map<String, Object> farewell = new LinkedHashMap<>();
            int code = BROKEN_LINK;
            token = readToken();
            if (!token.equals(refusedToken)) {
                try {
                    code = converse(farewell);
                } catch (java.util.concurrent.CompletionException error) {
                    System.err.println("cannot connect: " + error.getCause());
                } catch (RuntimeException | StackOverflowError error) { // of a message of a broken server
                    System.err.println("unreadable message: " + error);
                }
            }
            if (UNSPECIFIC.contains(code) && farewell.get("Code") instanceof Number number) code = number.intValue();
            if (code == TOKEN_INVALID) stop("the token was refused");
            if (code == TOKEN_EXPIRED) refusedToken = token;
            else if (FINAL.contains(code) || Boolean.FALSE.equals(farewell.get("Reconnect"))) stop("closed with " + code);
            long bound = (long) Math.min(30_000, 1000 * Math.pow(2, Math.min(failures++, 10)));
            long wait = farewell.get("RetryAfterMs") instanceof Number floor ? Math.max(0, Math.min(MAX_WAIT_MS, floor.longValue())) : 0;
            wait += ThreadLocalRandom.current().nextLong(bound);
            System.err.println("closed with " + code + ", next attempt in " + wait + " ms");
            Thread.sleep(wait);
        }
    }

    static void stop(String reason) {
        System.err.println(reason);
        System.exit(1);
    }

    String readToken() throws Exception {
        return secret.startsWith("@") ? Files.readString(Path.of(secret.substring(1))).strip() : secret;
    }

    /** One socket from the handshake to its end. Returns the close code. */
    int converse(Map<String, Object> farewell) throws Exception {
        BlockingQueue<Received> received = new LinkedBlockingQueue<>();
        WebSocket socket = http.newWebSocketBuilder()
                .connectTimeout(Duration.ofSeconds(TIMEOUT_SECONDS))
                .buildAsync(URI.create(url), new Receiver(received))
                .join();
        try {
            send(socket, Map.of("type", "authenticate", "token", token));
            long since = System.nanoTime();
            boolean following = false, subscribing = false, pinging = false;
            while (true) {
                int timeout = subscribing || pinging || !following ? TIMEOUT_SECONDS : HEARTBEAT_SECONDS;
                Received frame = received.poll(timeout, TimeUnit.SECONDS);
                if (frame == null) {
                    if (pinging || !following) return BROKEN_LINK; // the link is dead
                    pinging = true;
                    send(socket, Map.of("type", "ping"));
                    continue;
                }
                pinging = false;
                if (frame.text == null) return frame.code;
                if (System.nanoTime() - since > HEARTBEAT_SECONDS * 1_000_000_000L) failures = 0;

                Map<String, Object> message = Json.object(Json.read(frame.text));
                Map<String, Object> data = Json.object(message.get("Data"));
                switch (String.valueOf(message.get("Type"))) {
                    case "AuthenticationResult" -> {
                        if (message.get("Success") == Boolean.TRUE && !following && !subscribing) subscribing = subscribe(socket);
                    }
                    case "SetCompanyResult" -> {
                        if (message.get("Success") != Boolean.TRUE) {
                            Object reason = Json.object(message.get("Error")).get("Code");
                            if ("company_forbidden".equals(reason)) stop("no such company for this user");
                            return BROKEN_LINK; // reconnect and try again
                        }
                        subscribing = false;
                        following = true;
                        if (data.get("Recovered") != Boolean.TRUE) {
                            if (gapRetries > MAX_GAP_RETRIES) resync("gap");
                            else if (position != null) resync(data.get("Epoch").equals(epoch) ? "expired" : "epoch");
                            gapRetries = 0;
                            position = (Long) data.get("Position");
                            epoch = (String) data.get("Epoch");
                            at = (String) data.get("At");
                        }
                        System.err.println("following after " + position + " of " + epoch);
                    }
                    case "TokenExpiring" -> {
                        String next = readToken();
                        if (!next.equals(token)) send(socket, Map.of("type", "authenticate", "token", token = next));
                    }
                    case "CompanyRevoked" -> stop("access to the company was revoked");
                    case "Disconnect" -> farewell.putAll(data);
                    case "Error" -> System.err.println("error: " + frame.text);
                    case "Resync" -> {
                        if (!following || subscribing) break;
                        long next = (Long) message.get("Position");
                        if (data.get("Epoch").equals(epoch) && next < position) break; // a duplicate; at the same one it is none
                        position = next;
                        epoch = (String) data.get("Epoch");
                        at = (String) message.get("At");
                        resync((String) data.get("Reason"));
                    }
                    default -> {
                        if (!following || subscribing || !(message.get("Position") instanceof Long next)) break;
                        if (next <= position) break; // a duplicate
                        boolean skipped = "Skipped".equals(message.get("Type")); // changes that this user may not see
                        if (next > position + 1 && !skipped) { // a gap
                            if (++gapRetries > MAX_GAP_RETRIES) position = null;
                            subscribing = subscribe(socket);
                            break;
                        }
                        position = next;
                        at = (String) message.get("At");
                        gapRetries = 0;
                        if (!skipped) System.out.println(frame.text.replaceAll("[\r\n]", " "));
                    }
                }
            }
        } finally {
            socket.abort();
        }
    }

    boolean subscribe(WebSocket socket) {
        Map<String, Object> data = new LinkedHashMap<>();
        data.put("companyId", company);
        if (position != null) {
            data.put("after", position);
            data.put("epoch", epoch);
            if (at != null) data.put("at", at);
        }
        send(socket, Map.of("type", "setCompany", "data", data));
        return true;
    }

    /** An application would reload its state here. */
    static void resync(String reason) {
        System.out.println("resync: " + reason);
    }

    /** Returns when the text is sent: a second one meanwhile would be refused. After an error a close follows, or silence. */
    static void send(WebSocket socket, Map<String, Object> message) {
        socket.sendText(Json.write(message), true)
                .orTimeout(TIMEOUT_SECONDS, TimeUnit.SECONDS)
                .exceptionally(error -> null)
                .join();
    }

    /** Puts complete texts and the close code into a queue. */
    record Receiver(BlockingQueue<Received> received, StringBuilder partial) implements WebSocket.Listener {
        Receiver(BlockingQueue<Received> received) {
            this(received, new StringBuilder());
        }

        @Override
        public CompletionStage<?> onText(WebSocket socket, CharSequence part, boolean last) {
            partial.append(part);
            if (last) {
                received.add(new Received(partial.toString(), 0));
                partial.setLength(0);
            }
            socket.request(1);
            return null;
        }

        @Override
        public CompletionStage<?> onClose(WebSocket socket, int code, String reason) {
            received.add(new Received(null, code));
            return null;
        }

        @Override
        public void onError(WebSocket socket, Throwable error) {
            received.add(new Received(null, BROKEN_LINK));
        }
    }

    /** The part of JSON that is needed, because Java has none. Objects are maps, integers are Long. */
    static final class Json {
        final String text;
        int at;

        Json(String text) {
            this.text = text;
        }

        static Object read(String text) {
            return new Json(text).value();
        }

        @SuppressWarnings("unchecked")
        static Map<String, Object> object(Object value) {
            return value instanceof Map<?, ?> map ? (Map<String, Object>) map : Map.of();
        }

        static String write(Object value) {
            if (value instanceof Map<?, ?> map) {
                List<String> pairs = new ArrayList<>();
                map.forEach((name, item) -> pairs.add(write(name) + ":" + write(item)));
                return "{" + String.join(",", pairs) + "}";
            }
            if (!(value instanceof String string)) return String.valueOf(value);
            StringBuilder out = new StringBuilder("\"");
            for (char letter : string.toCharArray()) {
                if (letter < ' ' || letter == '"' || letter == '\\') out.append(String.format("\\u%04x", (int) letter));
                else out.append(letter);
            }
            return out.append('"').toString();
        }

        Object value() {
            char first = peek();
            if (first == '{') {
                Map<String, Object> map = new LinkedHashMap<>();
                for (at++; peek() != '}'; skip(',')) {
                    String name = (String) value();
                    skip(':');
                    map.put(name, value());
                }
                at++;
                return map;
            }
            if (first == '[') {
                List<Object> list = new ArrayList<>();
                for (at++; peek() != ']'; skip(',')) list.add(value());
                at++;
                return list;
            }
            if (first == '"') return string();
            int begin = at;
            while (at < text.length() && ",]} \t\r\n".indexOf(text.charAt(at)) < 0) at++;
            String word = text.substring(begin, at);
            return switch (word) {
                case "true" -> true;
                case "false" -> false;
                case "null" -> null;
                default -> word.matches("-?\\d{1,18}") ? (Object) Long.valueOf(word) : Double.valueOf(word);
            };
        }

        String string() {
            StringBuilder out = new StringBuilder();
            for (at++; text.charAt(at) != '"'; at++) {
                char letter = text.charAt(at);
                if (letter == '\\') {
                    letter = text.charAt(++at);
                    if (letter == 'u') {
                        letter = (char) Integer.parseInt(text.substring(at + 1, at + 5), 16);
                        at += 4;
                    } else {
                        int known = "bfnrt".indexOf(letter);
                        if (known >= 0) letter = "\b\f\n\r\t".charAt(known);
                    }
                }
                out.append(letter);
            }
            at++;
            return out.toString();
        }

        char peek() {
            while (" \t\r\n".indexOf(text.charAt(at)) >= 0) at++;
            return text.charAt(at);
        }

        void skip(char letter) {
            if (peek() == letter) at++;
        }
    }
}
