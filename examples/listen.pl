#!/usr/bin/env perl
# A client of Notifier in Perl, by the rules of docs/protocol.md. No modules but Perl's own are needed: Perl
# 5.20 or newer (and IO::Socket::SSL for wss://).
#
#     perl examples/listen.pl ws://127.0.0.1:8181/ COMPANY TOKEN
#
# Prints the company's messages as they are committed, one a line; comes back by itself, and misses none. What
# happens to the connection, and where a real application would read its state afresh, goes to standard error.
# Instead of TOKEN, a file that has one (`@FILE`) may be given: it is read anew at each connection.

use v5.20;
use warnings;

use Digest::SHA qw(sha1_base64);
use IO::Select;
use IO::Socket::IP;
use JSON::PP ();
use List::Util qw(min);
use MIME::Base64 qw(encode_base64);
use POSIX qw(strftime);
use Time::HiRes qw(sleep time);

use constant {
    HEARTBEAT => 15,         # seconds of silence until we ask whether somebody is there
    PATIENCE => 10,          # seconds for that answer, and for a connection
    LONGEST_WAIT => 30,      # seconds
    MOST_MENDS => 3,         # so often is one hole asked for
    LARGEST => 1_048_576,    # bytes of a message; the service stays far below
};
use constant { CONTINUATION => 0, TEXT => 1, CLOSE => 8, PING => 9, PONG => 10 };

my %final = map { $_ => 1 } 1002, 1003, 1007, 1009, 4400, 4403, 4409;
my %speechless = map { $_ => 1 } 1000, 1005, 1006;
my %refusal = map { $_ => 1 } 4401, 4419;

if (@ARGV != 3) {
    say STDERR "usage: $0 URL COMPANY TOKEN|\@FILE";
    exit 2;
}
my ($url, $company, $secret) = @ARGV;
my ($secure, $host, $port) = $url =~ m{^ws(s?)://([^/:\[\]]+|\[[^\]]+\])(?::(\d+))?/?$}
    or stop("this is no ws:// or wss:// URL: $url");
$port //= $secure ? 443 : 80;

my $json = JSON::PP->new->utf8;
my ($position, $epoch, $stamp);    # of the last message that we have; undefined until we are told
my $mends = 0;
my ($shown, $expires) = ('', '');    # the last token, and when it ends, as the service has it
my $refused = '';

STDOUT->autoflush;
STDERR->autoflush;
local $SIG{PIPE} = 'IGNORE';      # writing to a dead link is an error like any other

my $failures = 0;
while (1) {
    my %farewell;
    my $since = time;
    my $code = eval { converse(\%farewell) } // 1006;
    my $error = $@ =~ s/\s+\z//r;
    $failures = 0 if time - $since > HEARTBEAT;
    $code = $farewell{Code} // $code if $speechless{$code};
    my $reason = join ' ', $code, $farewell{Reason} // $error;
    $refused = $shown if $refusal{$code};
    stop($reason) if $final{$code} || $refusal{$code} && $secret !~ /^@/;
    stop($reason) if exists $farewell{Reconnect} && !$farewell{Reconnect} && !$refusal{$code};
    my $wait = rand(min(LONGEST_WAIT, 2**$failures++)) + ($farewell{RetryAfterMs} // 0) / 1000;
    say STDERR sprintf 'the connection ended: %s; back in %.1f s', $reason, $wait;
    sleep $wait;
}

# One connection. Returns its close code and fills the farewell; dies where the link breaks.
sub converse {
    my ($farewell) = @_;
    my $fresh = token();
    my $link = open_link();
    say_to($link, { type => 'authenticate', token => $shown = $fresh });
    my ($asked, $following, $probing, $heard) = (0, 0, 0, time);
    while (1) {
        my ($opcode, $text) = hear($link, $heard + HEARTBEAT + ($probing ? PATIENCE : 0));
        if (!defined $opcode) {
            return 1006 if %$farewell;
            die "the link is silent\n" if $probing++;
            say_to($link, { type => 'ping' });
            next;
        }
        ($heard, $probing) = (time, 0);
        return length $text < 2 ? 1005 : unpack 'n', $text if $opcode == CLOSE;
        next if $opcode != TEXT;

        my $message = $json->decode($text);
        die "this is no message\n" if ref $message ne 'HASH';
        my ($type, $data, $at) = @$message{qw(Type Data Position)};
        if ($type eq 'AuthenticationResult') {
            next if !$message->{Success};    # a close follows
            $expires = $data->{ExpiresAt};
            ask($link) if !$asked++;         # else it is the answer to a renewal
        } elsif ($type eq 'SetCompanyResult') {
            if (!$message->{Success}) {
                my $fault = $message->{Error};
                stop($fault->{Message}) if $fault->{Code} ne 'unavailable';
                die "$fault->{Message}\n";
            }
            $following = 1;
            if (!$data->{Recovered}) {
                say STDERR 'something may have been missed: read the state afresh' if defined $epoch;
                ($position, $epoch) = @$data{qw(Position Epoch)};
                $mends = 0;
            }
            $stamp = $data->{At};    # absent where there is no such message
            say STDERR "following after $position of $epoch";
        } elsif ($type eq 'CompanyRevoked') {
            stop('access to the company was lost');
        } elsif ($type eq 'TokenExpiring') {
            my $next = eval { token() } // $shown;
            say_to($link, { type => 'authenticate', token => $shown = $next }) if $next ne $shown;
        } elsif ($type eq 'Disconnect') {
            %$farewell = %$data;
        } elsif ($type eq 'Error') {
            say STDERR "error: $text";
        } elsif (defined $at && $following) {
            my $another_log = $type eq 'Resync' && $data->{Epoch} ne $epoch;
            next if $at <= $position && !$another_log;    # a double
            if ($type eq 'Resync') {
                $epoch = $data->{Epoch};
                say STDERR "resync ($data->{Reason}): read the state afresh";
            } elsif ($at != $position + 1) {              # a hole
                undef $position if ++$mends > MOST_MENDS;
                $following = 0;
                ask($link);
                next;
            }
            ($position, $stamp, $mends) = ($at, $message->{At}, 0);
            say $text =~ s/[\r\n]/ /gr;
        }
    }
}

sub ask {
    my ($link) = @_;
    my %data = (companyId => $company);
    @data{qw(after epoch)} = ($position, $epoch) if defined $position;
    $data{at} = $stamp if defined $position && defined $stamp;
    say_to($link, { type => 'setCompany', data => \%data });
}

# The token to show next. Dies when it was refused or has expired.
sub token {
    my $token = $secret;
    if ($secret =~ /^@(.*)/s) {
        open my $file, '<', $1 or die "$1: $!\n";
        ($token) = (readline($file) // '') =~ /(\S*)/;
    }
    my $now = strftime '%Y-%m-%dT%H:%M:%SZ', gmtime;
    my $spent = $token eq $refused || $token eq $shown && $expires && $expires le $now;
    die "the token has expired or is refused, and there is no other yet\n" if $spent;
    return $token;
}

sub stop {
    my ($why) = @_;
    say STDERR $why;
    exit 1;
}

# --- WebSocket (RFC 6455): no extensions, no subprotocol

sub open_link {
    my %peer = (PeerHost => $host =~ s/[\[\]]//gr, PeerPort => $port, Timeout => PATIENCE);
    my $socket;
    if ($secure) {
        require IO::Socket::SSL;
        $socket = IO::Socket::SSL->new(%peer) or die IO::Socket::SSL::errstr(), "\n";
    } else {
        $socket = IO::Socket::IP->new(%peer) or die "$@\n";
    }
    my $link = { socket => $socket, bytes => '' };
    my $key = encode_base64(noise(16), '');
    write_all($link, join "\r\n", 'GET / HTTP/1.1', "Host: $host:$port", 'Upgrade: websocket',
        'Connection: Upgrade', "Sec-WebSocket-Key: $key", 'Sec-WebSocket-Version: 13', '', '');
    my $until = time + PATIENCE;
    while ($link->{bytes} !~ /\r\n\r\n/) {
        read_some($link, $until) or die "the handshake is not answered\n";
    }
    (my $answer, $link->{bytes}) = split /\r\n\r\n/, $link->{bytes}, 2;
    my ($status) = $answer =~ m{^HTTP/1\.1 (\d+)} or die "this is not HTTP\n";
    stop('the handshake is refused') if $status == 403;
    die "the handshake is answered with $status\n" if $status != 101;
    my ($accept) = $answer =~ /^Sec-WebSocket-Accept:\s*(\S+)/mi;
    my $proof = sha1_base64("${key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11") . '=';
    die "this is no WebSocket\n" if ($accept // '') ne $proof;
    return $link;
}

# The next text, pong or close as (opcode, bytes); pings are answered. Empty at the deadline (seconds).
sub hear {
    my ($link, $deadline) = @_;
    while (1) {
        my ($opcode, $final, $payload) = frame($link, $deadline) or return;
        if ($opcode == PING) {
            send_frame($link, PONG, $payload);
        } elsif ($opcode == PONG) {
            return (PONG, $payload);
        } elsif ($opcode == CLOSE) {
            eval { send_frame($link, CLOSE, substr $payload, 0, 2) };    # they may be gone already
            return (CLOSE, $payload);
        } elsif ($opcode == TEXT || $opcode == CONTINUATION) {
            $link->{text} .= $payload;    # in pieces, where it comes so
            die "a message is too large\n" if length $link->{text} > LARGEST;
            return (TEXT, delete $link->{text}) if $final;
        } else {
            die "a frame of an unknown kind, $opcode\n";
        }
    }
}

# The next frame as (opcode, final, payload); empty at the deadline.
sub frame {
    my ($link, $deadline) = @_;
    while (1) {
        my ($first, $second, $rest) = unpack 'CCa*', $link->{bytes};
        if (defined $second) {
            die "a frame with bits that nobody has asked for\n" if $first & 0x70 || $second & 0x80;
            my ($size, $head) = ($second, 2);
            ($size, $head) = (unpack('n', $rest), 4) if $second == 126;
            ($size, $head) = (unpack('Q>', $rest), 10) if $second == 127;
            die "a frame is too large\n" if ($size // 0) > LARGEST;
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
    die 'the link broke: ', defined $count ? 'closed without a word' : $!, "\n" if !$count;
    return 1;
}

sub say_to {
    my ($link, $said) = @_;
    send_frame($link, TEXT, $json->encode($said));
}

sub send_frame {
    my ($link, $opcode, $payload) = @_;
    my $size = length $payload;
    my $head = $size < 126 ? pack 'CC', 0x80 | $opcode, 0x80 | $size
        : pack 'CCn', 0x80 | $opcode, 0xfe, $size;
    my $mask = noise(4);
    write_all($link, $head . $mask . ($payload ^ substr $mask x ($size / 4 + 1), 0, $size));
}

sub write_all {
    my ($link, $bytes) = @_;
    while (length $bytes) {
        my $count = syswrite $link->{socket}, $bytes or die "the link broke: $!\n";
        substr $bytes, 0, $count, '';
    }
}

sub noise {
    my ($count) = @_;
    return pack 'C*', map { int rand 256 } 1 .. $count;
}
