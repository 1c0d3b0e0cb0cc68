#!/bin/sh
# Debian's Postfix as a smarthost client, tuned as its TUNING_README says: as many deliveries at once as the others have, connections used again,
# no brake between coming in and going out. It syncs each message before its 250, as it always does. Root only.
set -eu
folder=$1 sink=$2 port=$3
chmod 755 "$folder"
mkdir -p "$folder/etc" "$folder/data" "$folder/queue/pid"
for name in active bounce corrupt defer deferred flush hold incoming private saved trace; do mkdir -m 700 "$folder/queue/$name"; done
mkdir "$folder/queue/maildrop" "$folder/queue/public"
chown -R postfix "$folder/data" "$folder/queue"
chown root "$folder/queue" "$folder/queue/pid"
chgrp postdrop "$folder/queue/maildrop" "$folder/queue/public"
chmod 1730 "$folder/queue/maildrop"
chmod 710 "$folder/queue/public"
cat > "$folder/etc/main.cf" <<END
compatibility_level = 3.6
queue_directory = $folder/queue
data_directory = $folder/data
mail_owner = postfix
myhostname = relay.bench.test
mydestination =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mynetworks = 127.0.0.0/8
maillog_file = $folder/log
maillog_file_prefixes = $folder
alias_maps =
relayhost = [${sink%:*}]:${sink##*:}
smtpd_peername_lookup = no
smtpd_client_connection_count_limit = 0
default_process_limit = 200
default_destination_concurrency_limit = 20
initial_destination_concurrency = 20
default_destination_recipient_limit = 100
qmgr_message_active_limit = 20000
qmgr_message_recipient_limit = 20000
in_flow_delay = 0
smtp_connection_cache_destinations = static:all
smtp_connection_reuse_count_limit = 1000
smtp_tls_security_level = none
END
cat > "$folder/etc/master.cf" <<END
127.0.0.1:$port inet n - n - - smtpd
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
anvil unix - - n - 1 anvil
showq unix n - n - - showq
smtp unix - - n - - smtp
relay unix - - n - - smtp
error unix - - n - - error
retry unix - - n - - error
scache unix - - n - 1 scache
tlsmgr unix - - n 1000? 1 tlsmgr
postlog unix-dgram n - n - 1 postlogd
END
exec /usr/lib/postfix/sbin/master -c "$folder/etc" -d
