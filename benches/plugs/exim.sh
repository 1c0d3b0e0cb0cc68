#!/bin/sh
# Debian's Exim as its manual has it for much mail: what comes in is queued in split folders, and runners deliver it side by side. It syncs
# each message before its 250. WEIR_TEST_EXIM names the program where it is not installed. Root only.
set -eu
folder=$1 sink=$2 port=$3
chmod 755 "$folder"
program=${WEIR_TEST_EXIM:-$(command -v exim4 || echo target/ci/exim/usr/sbin/exim4)}
ln "$program" "$folder/exim4" 2> /dev/null || cp "$program" "$folder/exim4"
chmod 4755 "$folder/exim4"
mkdir -p "$folder/spool" "$folder/log"
chown Debian-exim "$folder/spool" "$folder/log"
cat > "$folder/conf" <<END
exim_path = $folder/exim4
primary_hostname = relay.bench.test
spool_directory = $folder/spool
log_file_path = $folder/log/%s
exim_user = Debian-exim
exim_group = Debian-exim
tls_advertise_hosts =
host_lookup =
rfc1413_query_timeout = 0s
local_interfaces = 127.0.0.1.$port
split_spool_directory
queue_only
queue_run_max = 20
smtp_accept_max = 0
smtp_accept_max_per_connection = 0
smtp_accept_queue_per_connection = 0
acl_smtp_rcpt = accept
domainlist local_domains =
begin routers
sink:
  driver = manualroute
  route_list = * ${sink%:*}::${sink##*:}
  self = send
  transport = smtp
begin transports
smtp:
  driver = smtp
  hosts_try_fastopen =
  connection_max_messages = 1000
begin retry
* * F,1h,1s
END
# A runner ends with the queue it saw: others begin each second, as many as queue_run_max at once.
exec "$folder/exim4" -C "$folder/conf" -bdf -q1s 2> "$folder/errors"
