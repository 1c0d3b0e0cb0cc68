# Verifies every RSA signature of every message in a folder with Mail::DKIM, which knows no Ed25519 where Debian has it.
#
# verify.pl KEYS FOLDER: as verify.py.
use strict;
use warnings;
use JSON::PP;
use Mail::DKIM::DNS;
use Mail::DKIM::Verifier;
use Net::DNS::RR;

my ($file, $folder) = @ARGV;
my $keys = decode_json(do { local $/; open my $in, '<', $file or die "$file: $!"; <$in> });
{
    no warnings 'redefine';
    *Mail::DKIM::DNS::query = sub {
        my ($name, $type) = @_;
        my $text = $keys->{ lc $name } or return;
        return Net::DNS::RR->new(owner => $name, type => 'TXT', txtdata => [ $text =~ /(.{1,255})/gs ]);
    };
}
opendir my $entries, $folder or die "$folder: $!";
for my $name (sort grep { !/^\./ } readdir $entries) {
    my $verifier = Mail::DKIM::Verifier->new();
    open my $in, '<:raw', "$folder/$name" or die "$name: $!";
    while (read $in, my $piece, 65536) { $verifier->PRINT($piece) }
    $verifier->CLOSE;
    my $number = 0;
    for my $signature ($verifier->signatures) {
        next unless ($signature->algorithm // '') eq 'rsa-sha256';
        my $verdict = $signature->result eq 'pass' ? 'ok' : 'fail';
        print join(' ', $name, $number++, $signature->domain, $signature->selector, $verdict, $signature->result_detail), "\n";
    }
}
