# The first process of a lab node, in its new net, mount, pid and uts namespaces: builds the node's root and reaps.
#
# $1 an empty directory for the root; $2 the node's name. The variable BINDS holds one `source target options` a line.
# The node sees the host's programs (/usr) and settings (/etc) and cannot change them; all the rest is its own.
set -e
root=$1
name=$2

mount -t tmpfs -o mode=755 "node-$name" "$root"
cd "$root"
mkdir -p usr etc dev proc sys run tmp root home old var/log var/lib var/tmp var/cache
chmod 1777 tmp var/tmp
ln -s ../run var/run
# As the packages' services do at start.
mkdir run/bird && install -d -o frr -g frr run/frr 2>/dev/null || true
for link in bin sbin lib lib32 lib64 libx32; do
  if [ -h "/$link" ]; then
    cp -a "/$link" "$link"
  elif [ -d "/$link" ]; then
    mkdir "$link" && mount --bind "/$link" "$link"
  fi
done
mount --bind /usr usr && mount -o remount,bind,ro usr
mount --rbind /dev dev
mount -t proc proc proc
mount -t sysfs sysfs sys

# The host's settings by links, so that a node can have some of its own beside them.
mkdir .etc
mount --bind /etc .etc && mount -o remount,bind,ro .etc
(cd etc && ln -s ../.etc/* .)
rm -f etc/frr etc/bird etc/iproute2
mkdir etc/frr etc/bird
[ ! -d .etc/iproute2 ] || cp -a .etc/iproute2 etc/
mkdir -p etc/iproute2/rt_protos.d
# /usr is read-only, so programs of a node's own go over an empty /usr/local.
mount -t tmpfs -o mode=755 local usr/local && mkdir usr/local/bin usr/local/sbin

printf '%s' "$BINDS" | while read -r source target options; do
  if [ -d "$source" ]; then
    mkdir -p ".$target"
  else
    mkdir -p "$(dirname ".$target")" && : >>".$target"
  fi
  mount --bind "$source" ".$target"
  [ "$options" != ro ] || mount -o remount,bind,ro ".$target"
done

pivot_root . old
cd /
umount -l old
rmdir old
hostname "$name"
ip link set lo up
# A new network namespace takes the machine's own setting, which a container runtime may have switched on.
echo 0 >/proc/sys/net/ipv4/ip_forward
# An address can be used at once: the lab's addresses are unique by construction.
echo 0 >/proc/sys/net/ipv6/conf/all/accept_dad
echo 0 >/proc/sys/net/ipv6/conf/default/accept_dad
echo ready
unset BINDS
# The shell's wait reaps every process that is left to it.
sleep infinity >/dev/null 2>&1 &
wait
