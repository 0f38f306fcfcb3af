#!/bin/sh
# Answers one HTTP request with what it was; `/moved` redirects, `/page` has a link.
cr=$(printf '\r')
read -r method path version
length=0
headers=
while read -r line; do
  line=${line%"$cr"}
  [ -n "$line" ] || break
  headers="$headers$line
"
  case $line in [Cc]ontent-[Ll]ength:*) length=${line##* } ;; esac
done
body=$(head -c "$length")
status='200 OK' kind=text/plain more=
text="$method $path
$headers
$body"
case $path in
/moved) status='302 Found' more="Location: /there?a=b\r\n" ;;
/page) kind=text/html text='<a href="/rewriteme">test</a>' ;;
esac
[ "$method" != HEAD ] || text=
printf "HTTP/1.1 $status\r\nContent-Type: $kind\r\n${more}Connection: close\r\nAccess-Control-Allow-Origin: *\r\n\r\n"
printf %s "$text"
