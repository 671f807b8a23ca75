#!/bin/sh
# In a guest: client and server of Linux's vsock_test, each other's peer through
# the hairpin (what the guest sends to CID 2 comes back to it).
ifconfig lo 127.0.0.1 up
port=12345
vsock_test --mode server --control-port $port --peer-cid 2 >/tmp/server 2>&1 &
while ! netstat -ltn | grep -q ":$port "; do sleep 0.1; done
vsock_test --mode client --control-host 127.0.0.1 --control-port $port --peer-cid 2
client=$?
wait $!
server=$?
[ $client -eq 0 ] && [ $server -eq 0 ] && exit 0
cat /tmp/server
echo "client $client, server $server"
exit 1
