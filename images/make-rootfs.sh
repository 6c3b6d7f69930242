#!/bin/sh
# make-rootfs.sh <image>: runs in a build stage, on Debian; makes /out, the whole root file system of a job image.
# What the Dockerfile put there before stays.
#
# An allow-list: it copies the files of the image's packages (packages.txt) and of their dependencies, and checks the
# result. Deleting from a full system instead would leave the deleted in a lower layer, and miss what is new next year.
set -eu
image=$1
here=$(dirname "$0")
out=/out
list=$(mktemp)

wanted=$(sed 's/#.*//' "$here/packages.txt" | awk -v image="$image" '$2 == "all" || $2 == image { print $1 }')
everything=$(sed 's/#.*//' "$here/packages.txt" | awk 'NF { print $1 }')

# Our own base image has them already; a registry's does not.
# shellcheck disable=SC2086 # lists of words, here and below
if ! dpkg-query --show $everything >/dev/null 2>&1; then
  apt-get update
  DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $everything
fi

# Dependencies that only serve installing packages and keeping a host.
left_out=' debconf dpkg init-system-helpers install-info login lsb-base mount passwd perl-base util-linux '

closure='' next=$wanted
while [ -n "$next" ]; do
  queue=$next next=''
  for package in $queue; do
    case "$closure " in *" $package "*) continue ;; esac
    case "$left_out" in *" $package "*) continue ;; esac
    # Not installed: the other side of an "a | b", or a virtual package.
    [ "$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || continue
    closure="$closure $package"
    next="$next $(dpkg-query -W -f='${Pre-Depends},${Depends}\n' "$package" | tr ',|' '\n' | sed 's/[(:].*//; s/ //g' | tr '\n' ' ')"
  done
done

# Packages still say /bin/x for what the merged /usr keeps in /usr/bin/x; tar must not copy through the link.
# shellcheck disable=SC2086
dpkg-query --listfiles $closure | sed -nE 's#^/(bin|sbin|lib|lib32|lib64)/#/usr/\1/#; s#^/##p' | sort -u |
  grep -Ev '^(bin|sbin|lib|lib32|lib64|\.)$' |
  # Documentation; the administrator's commands and settings; Perl.
  grep -Ev '^usr/share/(bash-completion|bug|common-licenses|debconf|doc|gcc|gdb|info|lintian|locale|man|menu|perl5|pixmaps)(/|$)' |
  grep -Ev '^(root|usr/include|usr/sbin|usr/lib/(init|systemd|tmpfiles\.d|udev)|usr/lib/ssl/misc|var/(lock|lib/(dpkg|systemd))|etc/(rmt|ssl/private|apt|cron\.[a-z]+|dpkg|init|init\.d|pam\.d|skel|systemd|update-motd\.d))(/|$)' |
  grep -Ev '^usr/bin/(c_rehash|deb-systemd-helper|deb-systemd-invoke|tzselect)$' |
  # 8 MB of character sets: iconv keeps Unicode (built in) and Western European.
  grep -Ev '/gconv/' >"$list"
find /usr/lib/*-linux-gnu/gconv -name 'gconv-modules*' -o -name ISO8859-1.so -o -name ISO8859-15.so -o -name CP1252.so |
  sed 's#^/##' >>"$list"

for d in bin sbin lib lib64; do
  mkdir -p "$out/usr/$d"
  ln -s "usr/$d" "$out/$d"
done

# What no package owns: alternatives, the certificate bundle; and, of util-linux, the commands that job scripts use.
for extra in etc/alternatives/awk usr/bin/awk etc/alternatives/which usr/bin/which etc/ssl/certs etc/localtime \
  usr/bin/flock usr/bin/getopt usr/bin/setsid; do
  [ ! -e "/$extra" ] || echo "$extra" >>"$list"
done
while read -r file; do
  if [ -e "/$file" ] || [ -L "/$file" ]; then echo "$file"; fi
done <"$list" >"$list.here"
# etc/ssl/certs is wanted with its contents, which were made at installation; all else is named file by file.
tar -C / --no-recursion -cf - -T "$list.here" | tar -C "$out" -xpf -
cp -a /etc/ssl/certs/. "$out/etc/ssl/certs/"

cd "$out"
mkdir -p cronium dev etc proc run sys tmp usr/local/bin var/tmp
chmod 1777 tmp var/tmp
chmod 0555 cronium # only a place to mount on: writing to it without a mount must fail
printf '127.0.0.1 localhost\n::1 localhost\n' >etc/hosts
: >etc/resolv.conf
echo job >etc/hostname
printf '%s\n' 'root:x:0:0:root:/:/bin/false' 'cronium:x:1000:1000::/tmp:/bin/bash' 'nobody:x:65534:65534:nobody:/:/bin/false' >etc/passwd
printf '%s\n' 'root:x:0:' 'cronium:x:1000:' 'nogroup:x:65534:' >etc/group
printf '%s\n' 'passwd: files' 'group: files' 'hosts: files dns' >etc/nsswitch.conf

if [ -x usr/bin/python3 ]; then
  ln -s /usr/bin/python3 usr/local/bin/python
  # A job cannot write __pycache__, so without this every run compiles its imports again (620 ms instead of 340).
  # unchecked-hash: the result depends on neither times nor source checks.
  python3 -m compileall -q -j 0 --invalidation-mode unchecked-hash -s "$out" -p / usr/lib/python3* || {
    echo 'make-rootfs: compiling the Python library failed' >&2; exit 1
  }
fi

ldconfig -r "$out"
rm -rf var/cache/ldconfig
find . -xdev ! -type l -perm /6000 -exec chmod ug-s {} +
find . -xdev ! -type l -perm -0002 ! -path ./tmp ! -path ./var/tmp -exec chmod o-w {} +

# The promises of images/README.md, kept here so that a new package cannot break them unseen.
for command in apt apt-get dpkg login mount passwd perl su sudo umount; do
  for dir in usr/bin usr/sbin usr/local/bin; do
    [ ! -e "$dir/$command" ] || { echo "make-rootfs: $dir/$command must not be in an image; leave its package out" >&2; exit 1; }
  done
done

# Nothing newer than this, whenever it is built: the same packages give the same layer.
find . -newermt @1700000000 -exec touch --no-dereference --date=@1700000000 {} +
echo "packages:$closure"
du -sh .
