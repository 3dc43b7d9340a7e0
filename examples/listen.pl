#!/usr/bin/env perl
# A client of Notifier in Perl 5.20 or newer, with core modules only (and IO::Socket::SSL for wss://). It implements
# docs/protocol.md.
#
#     perl examples/listen.pl ws://127.0.0.1:8181/ COMPANY TOKEN
#
# Prints the company's messages as they are committed, one per line; reconnects by itself, and misses none. The state
# of the connection, and where a real application would reload its state, goes to standard error. `@FILE` instead of
# TOKEN names a file with the token, which is read for each connection.

use v5.20;
use warnings;

use Digest::SHA qw(sha1_base64);
use IO::Select;
use IO::Socket::IP;
use JSON::PP ();
use List::Util qw(max min);
use MIME::Base64 qw(encode_base64);
use POSIX qw(strftime);
use Time::HiRes qw(sleep time);

use constant {
    HEARTBEAT => 15,         # seconds of silence until we send a ping
    TIMEOUT => 10,           # seconds for its answer, and for a connection
    MAX_WAIT => 30,          # seconds
    MAX_FLOOR => 3600,       # seconds, whatever the server requests
    MAX_GAP_RETRIES => 3,    # how often one gap is requested again
    MAX_BYTES => 1_048_576,  # of a message; the server stays far below
};
use constant { CONTINUATION => 0, TEXT => 1, CLOSE => 8, PING => 9, PONG => 10 };

my %final = map { $_ => 1 } 1002, 1003, 1007, 1009, 4400, 4403, 4409;
my %unspecific = map { $_ => 1 } 1000, 1005, 1006;
my %refusal = map { $_ => 1 } 4401, 4419;

if (@ARGV != 3) {
    say STDERR "usage: $0 URL COMPANY TOKEN|\@FILE";
    exit 2;
}
my ($url, $company, $secret) = @ARGV;
my ($secure, $host, $port) = $url =~ m{^ws(s?)://([^/:\[\]]+|\[[^\]]+\])(?::(\d+))?/?$}
    or stop("this is not a ws:// or wss:// URL: $url");
$port //= $secure ? 443 : 80;

my $json = JSON::PP->new->utf8;
my ($position, $epoch, $at);      # of the last message that we have; undefined until the server has named one
my $gap_retries = 0;
my ($presented, $expires) = ('', '');    # the last token, and when it expires according to the server
my $refused = '';

STDOUT->autoflush;
STDERR->autoflush;
local $SIG{PIPE} = 'IGNORE';      # so that writing to a dead link is an error like any other

my $failures = 0;
while (1) {
    my %farewell;
    my $since = time;
    my $code = eval { converse(\%farewell) } // 1006;
    my $error = $@ =~ s/\s+\z//r;
    $failures = 0 if time - $since > HEARTBEAT;
    $code = $farewell{Code} // $code if $unspecific{$code};
    my $reason = join ' ', $code, $farewell{Reason} // $error;
    $refused = $presented if $refusal{$code};
    stop($reason) if $final{$code} || $refusal{$code} && $secret !~ /^@/;
    stop($reason) if exists $farewell{Reconnect} && !$farewell{Reconnect} && !$refusal{$code};
    my $floor = max(0, min(MAX_FLOOR, ($farewell{RetryAfterMs} // 0) / 1000));
    my $wait = rand(min(MAX_WAIT, 2**$failures++)) + $floor;
    say STDERR sprintf 'the connection ended: %s; next attempt in %.1f s', $reason, $wait;
    sleep $wait;
}

# One connection. Returns its close code and fills the farewell; dies when the link breaks.
sub converse {
    my ($farewell) = @_;
    my $token = token();
    my $link = open_link();
    send_message($link, { type => 'authenticate', token => $presented = $token });
    my ($authenticated, $following, $pinging, $received) = (0, 0, 0, time);
    while (1) {
        my ($opcode, $text) = receive($link, $received + HEARTBEAT + ($pinging ? TIMEOUT : 0));
        if (!defined $opcode) {
            return 1006 if %$farewell;
            die "the link is silent\n" if $pinging++;
            send_message($link, { type => 'ping' });
            next;
        }
        ($received, $pinging) = (time, 0);
        return length $text < 2 ? 1005 : unpack 'n', $text if $opcode == CLOSE;
        next if $opcode != TEXT;

        my $message = $json->decode($text);
        die "this is not a message\n" if ref $message ne 'HASH';
        my ($type, $data, $next) = @$message{qw(Type Data Position)};
        if ($type eq 'AuthenticationResult') {
            next if !$message->{Success};    # a close follows
            $expires = $data->{ExpiresAt};
            subscribe($link) if !$authenticated++;   # otherwise the token was renewed
        } elsif ($type eq 'SetCompanyResult') {
            if (!$message->{Success}) {
                my $fault = $message->{Error};
                stop($fault->{Message}) if $fault->{Code} ne 'unavailable';
                die "$fault->{Message}\n";
            }
            $following = 1;
            if (!$data->{Recovered}) {
                say 'resync: messages may have been missed, reload the state' if defined $epoch;
                ($position, $epoch, $at) = @$data{qw(Position Epoch At)};
                $gap_retries = 0;
            }
            say STDERR "following after $position of $epoch";
        } elsif ($type eq 'CompanyRevoked') {
            stop('access to the company was revoked');
        } elsif ($type eq 'TokenExpiring') {
            my $token = eval { token() } // $presented;
            send_message($link, { type => 'authenticate', token => $presented = $token }) if $token ne $presented;
        } elsif ($type eq 'Disconnect') {
            %$farewell = %$data;
        } elsif ($type eq 'Error') {
            say STDERR "error: $text";
        } elsif (defined $next && $following) {
            my $reloads = $type eq 'Resync' && ($data->{Epoch} ne $epoch || $next == $position);
            next if $next <= $position && !$reloads;    # a duplicate
            if ($type eq 'Resync') {
                $epoch = $data->{Epoch};
                say STDERR "resync ($data->{Reason}): reload the state";
            } elsif ($next != $position + 1 && $type ne 'Skipped') {    # a gap
                undef $position if ++$gap_retries > MAX_GAP_RETRIES;
                $following = 0;
                subscribe($link);
                next;
            }
            ($position, $at, $gap_retries) = ($next, $message->{At}, 0);
            say $text =~ s/[\r\n]/ /gr if $type ne 'Skipped';    # changes that this user may not see
        }
    }
}

sub subscribe {
    my ($link) = @_;
    my %data = (companyId => $company);
    @data{qw(after epoch)} = ($position, $epoch) if defined $position;
    $data{at} = $at if defined $position && defined $at;
    send_message($link, { type => 'setCompany', data => \%data });
}

# The token to present next. Dies when it was refused or has expired.
sub token {
    my $token = $secret;
    if ($secret =~ /^@(.*)/s) {
        open my $file, '<', $1 or die "$1: $!\n";
        ($token) = (readline($file) // '') =~ /(\S*)/;
    }
    my $now = strftime '%Y-%m-%dT%H:%M:%SZ', gmtime;
    my $useless = $token eq $refused || $token eq $presented && $expires && $expires le $now;
    die "the token has expired or was refused, and there is no other yet\n" if $useless;
    return $token;
}

sub stop {
    my ($why) = @_;
    say STDERR $why;
    exit 1;
}

# --- WebSocket (RFC 6455): no extensions, no subprotocol

sub open_link {
    my %peer = (PeerHost => $host =~ s/[\[\]]//gr, PeerPort => $port, Timeout => TIMEOUT);
    my $socket;
    if ($secure) {
        require IO::Socket::SSL;
        $socket = IO::Socket::SSL->new(%peer) or die IO::Socket::SSL::errstr(), "\n";
    } else {
        $socket = IO::Socket::IP->new(%peer) or die "$@\n";
    }
    my $link = { socket => $socket, bytes => '' };
    my $key = encode_base64(random_bytes(16), '');
    write_all($link, join "\r\n", 'GET / HTTP/1.1', "Host: $host:$port", 'Upgrade: websocket',
        'Connection: Upgrade', "Sec-WebSocket-Key: $key", 'Sec-WebSocket-Version: 13', '', '');
    my $until = time + TIMEOUT;
    while ($link->{bytes} !~ /\r\n\r\n/) {
        read_some($link, $until) or die "the handshake was not answered\n";
    }
    (my $answer, $link->{bytes}) = split /\r\n\r\n/, $link->{bytes}, 2;
    my ($status) = $answer =~ m{^HTTP/1\.1 (\d+)} or die "the answer is not HTTP\n";
    stop('the handshake was refused') if $status == 403;
    die "the handshake was answered with $status\n" if $status != 101;
    my ($accept) = $answer =~ /^Sec-WebSocket-Accept:\s*(\S+)/mi;
    my $proof = sha1_base64("${key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11") . '=';
    die "this is not a WebSocket server\n" if ($accept // '') ne $proof;
    return $link;
}

# The next text, pong or close as (opcode, bytes); answers pings. Empty at the deadline (in seconds).
sub receive {
    my ($link, $deadline) = @_;
    while (1) {
        my ($opcode, $final, $payload) = frame($link, $deadline) or return;
        if ($opcode == PING) {
            send_frame($link, PONG, $payload);
        } elsif ($opcode == PONG) {
            return (PONG, $payload);
        } elsif ($opcode == CLOSE) {
            eval { send_frame($link, CLOSE, substr $payload, 0, 2) };    # the peer may be gone already
            return (CLOSE, $payload);
        } elsif ($opcode == TEXT || $opcode == CONTINUATION) {
            $link->{text} .= $payload;    # in fragments, if the server sends any
            die "a message is too large\n" if length $link->{text} > MAX_BYTES;
            return (TEXT, delete $link->{text}) if $final;
        } else {
            die "a frame of an unknown type, $opcode\n";
        }
    }
}

# The next frame as (opcode, final, payload); empty at the deadline.
sub frame {
    my ($link, $deadline) = @_;
    while (1) {
        my ($first, $second, $rest) = unpack 'CCa*', $link->{bytes};
        if (defined $second) {
            die "a frame with reserved bits\n" if $first & 0x70 || $second & 0x80;
            my ($size, $head) = ($second, 2);
            ($size, $head) = (unpack('n', $rest), 4) if $second == 126;
            ($size, $head) = (unpack('Q>', $rest), 10) if $second == 127;
            die "a frame is too large\n" if ($size // 0) > MAX_BYTES;
            if (defined $size && length $link->{bytes} >= $head + $size) {
                my $payload = substr $link->{bytes}, $head, $size;
                substr $link->{bytes}, 0, $head + $size, '';
                return ($first & 0x0f, $first & 0x80, $payload);
            }
        }
        read_some($link, $deadline) or return;
    }
}

# Waits for bytes; false at the deadline.
sub read_some {
    my ($link, $deadline) = @_;
    my $socket = $link->{socket};
    if (!($secure && $socket->pending)) {
        my $left = $deadline - time;
        return 0 if $left <= 0 || !IO::Select->new($socket)->can_read($left);
    }
    my $count = sysread $socket, $link->{bytes}, 65_536, length $link->{bytes};
    die 'the link broke: ', defined $count ? 'closed without a close frame' : $!, "\n" if !$count;
    return 1;
}

sub send_message {
    my ($link, $message) = @_;
    send_frame($link, TEXT, $json->encode($message));
}

sub send_frame {
    my ($link, $opcode, $payload) = @_;
    my $size = length $payload;
    my $head = $size < 126 ? pack 'CC', 0x80 | $opcode, 0x80 | $size
        : pack 'CCn', 0x80 | $opcode, 0xfe, $size;
    my $mask = random_bytes(4);
    write_all($link, $head . $mask . ($payload ^ substr $mask x ($size / 4 + 1), 0, $size));
}

sub write_all {
    my ($link, $bytes) = @_;
    while (length $bytes) {
        my $count = syswrite $link->{socket}, $bytes or die "the link broke: $!\n";
        substr $bytes, 0, $count, '';
    }
}

sub random_bytes {
    my ($count) = @_;
    return pack 'C*', map { int rand 256 } 1 .. $count;
}
