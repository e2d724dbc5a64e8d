# shellcheck shell=bash
# Healthy if squid refuses a host that is in no list. That needs no DNS and no outside host; `itself` keeps it out of the log.
exec 2> /dev/null 3<> /dev/tcp/127.0.0.1/3128 || exit 1
printf 'GET http://refused.invalid/ HTTP/1.0\r\n\r\n' >&3
IFS= read -r -t 3 line <&3 && [[ $line == HTTP/1.?\ 403* ]]
