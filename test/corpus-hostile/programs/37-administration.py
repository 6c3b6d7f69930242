# Tries: what only an administrator may: names, swap, modules, a new kernel, accounting, ports, a reboot.
# Outcome: succeeded 0
# Stdout: ^all \d+ as they should be\n$
# Uses: attempts
NO = ('EPERM', 'ENOSYS', 'EACCES')
attempt('sethostname', lambda: syscall(170, b'mine', 4), *NO)
attempt('setdomainname', lambda: syscall(171, b'mine', 4), *NO)
attempt('reboot', lambda: syscall(169, 0xFEE1DEAD, 672274793, 0, None), *NO)
attempt('swapon', lambda: syscall(167, b'/cronium/work/x', 0), *NO)
attempt('swapoff', lambda: syscall(168, b'/cronium/work/x'), *NO)
attempt('init_module', lambda: syscall(175, b'x', 1, b''), *NO)
attempt('finit_module', lambda: syscall(313, 0, b'', 0), *NO)
attempt('delete_module', lambda: syscall(176, b'fuse', 0), *NO)
attempt('kexec_load', lambda: syscall(246, 0, 0, None, 0), *NO)
attempt('kexec_file_load', lambda: syscall(320, 0, 0, 0, None, 0), *NO)
attempt('acct', lambda: syscall(163, b'/cronium/work/acct'), *NO)
attempt('syslog', lambda: syscall(103, 3, ctypes.create_string_buffer(64), 64), *NO)
attempt('iopl', lambda: syscall(172, 3), *NO)
attempt('ioperm', lambda: syscall(173, 0x70, 2, 1), *NO)
attempt('quotactl', lambda: syscall(179, 0x800002 << 8, b'/dev/vda', 0, None), *NO)
attempt('fanotify_init', lambda: syscall(300, 0x4, 0), *NO)
attempt('vhangup', lambda: syscall(153), *NO)
report()
