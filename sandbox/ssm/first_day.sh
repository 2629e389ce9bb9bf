# What lies on an instance on the first day: logs old and young, packages, images, and what nobody may touch.
set -eu
old() { touch -d "$1 days ago" "$2"; }
fill() { head -c "$(($1 * 1024))" /dev/zero >"$2"; }

mkdir -p /var/log/app /var/log/journal/cafe /var/log/audit /var/cache/apt/archives /var/spool/app /opt/app
for days in 9 16 23 30; do
    fill 200 "/var/log/app/app.log.$days.gz"
    old "$days" "/var/log/app/app.log.$days.gz"
done
fill 50 /var/log/app/app.log
fill 300 "/var/log/app/--a name  with spaces.log"
old 40 "/var/log/app/--a name  with spaces.log"
fill 100 /var/log/audit/audit.log.1
old 90 /var/log/audit/audit.log.1
fill 400 /var/cache/apt/archives/curl_8.deb
old 20 /var/cache/apt/archives/curl_8.deb
fill 900 /var/log/journal/cafe/system@1.journal
fill 700 /var/log/journal/cafe/system@2.journal
fill 100 /var/log/journal/cafe/system.journal

# A database, and links in the way of whoever follows links.
base=/var/lib/postgresql/16/main
mkdir -p "$base/base/1" "$base/pg_wal" "$base/log"
echo 16 >"$base/PG_VERSION"
for name in base/1/1259 pg_wal/000000010000000000000001 log/postgresql.log.1; do
    fill 100 "$base/$name"
    old 100 "$base/$name"
done
ln -s "$base" /var/log/postgresql
echo secret >/opt/app/settings.log
old 100 /opt/app/settings.log
ln -s /opt/app/settings.log /var/log/app/settings.log.1
ln "$base/log/postgresql.log.1" /var/log/app/postgresql.log.2

# Images as the docker of tools/ keeps them: a folder each, with the days since it was made.
for image in "app-1 60" "app-2 30" "app-3 3"; do
    set -- $image
    mkdir -p "/var/lib/docker/image/$1"
    echo "$2" >"/var/lib/docker/image/$1/days"
    fill 300 "/var/lib/docker/image/$1/layer"
done
mkdir -p /var/lib/docker/containers/web /var/lib/docker/volumes/data
echo app-2 >/var/lib/docker/containers/web/image
fill 100 /var/lib/docker/volumes/data/rows
