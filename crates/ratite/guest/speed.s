# A firmware of 512 bytes that runs guest code on demand, so that the host can see how fast a machine is.
#
# README.md says what it understands and how to assemble this file. It is the last 512 bytes of a ROM in the BIOS's place:
# a BIOS takes a tenth of a second where guests are fast, but minutes where they are slow, and would hide what comes
# after it. It moves into RAM, where guests have their code, and goes from real mode to 64-bit mode in one step.
# Interrupts stay off. RAM that nobody has written yet is zero.

        .intel_syntax noprefix
        .code16

        .set HERE, 0x8000               # Where the code runs; the linker is told so, too.
        .set SIZE, 512
        .set ROM_SEGMENT, 0xf000
        .set ROM_OFFSET, 0x10000 - SIZE

        .set UART, 0x3f8
        .set RECEIVED, 0x01             # In the line status: a byte waits to be read.
        .set SENT, 0x20                 # In the line status: the next byte can be written.
        .set POST_CODE, 0x80            # A port that QEMU takes, and does nothing with.

        .set TABLES, 0x1000             # Page tables: one page each.
        .set LEVEL_4, TABLES
        .set LEVEL_3, TABLES + 0x1000
        .set LEVEL_2, TABLES + 0x2000
        .set COUNTER, 0x6000
        .set STACK, 0x7000
        .set PAGE, 1 << 21              # The second of the large pages, and their size.

        .set TABLE, 0x03                # Of an entry: present and writable.
        .set LARGE, 0x83                # The same, for a large page.
        .set CODE, 0x08                 # The selector of the one segment.
        .set EFER, 0xc0000080
        .set LONG_MODE, 0x100           # In EFER.
        .set PAE, 0x20                  # In CR4.
        .set PAGED_AND_PROTECTED, 0x80000011 # In CR0.

        .globl _start
_start:
        cld
        xor     ax, ax
        mov     ds, ax
        mov     es, ax
        mov     si, ROM_OFFSET
        mov     di, HERE
        mov     cx, SIZE / 4
        rep movs dword ptr es:[di], dword ptr cs:[si]
        .byte   0xea                    # A far jump, which sets CS to 0.
        .word   in_ram, 0

in_ram:
        mov     al, 'r'
        mov     dx, UART
        out     dx, al

        mov     word ptr [LEVEL_4], LEVEL_3 | TABLE
        mov     word ptr [LEVEL_3], LEVEL_2 | TABLE
        mov     word ptr [LEVEL_2], LARGE
        mov     dword ptr [LEVEL_2 + 8], PAGE | LARGE
        mov     eax, PAE
        mov     cr4, eax
        mov     eax, TABLES
        mov     cr3, eax
        mov     ecx, EFER
        xor     edx, edx
        mov     eax, LONG_MODE
        wrmsr
        lgdtd   [segments_pointer]
        mov     eax, PAGED_AND_PROTECTED
        mov     cr0, eax
        .byte   0xea                    # A far jump, which sets CS to 64-bit code.
        .word   in_long_mode, CODE

        .code64
in_long_mode:
        mov     esp, STACK
        mov     al, 'R'
        call    send

# Obeys orders for ever. An order is a letter, which says what to do, and a character, which says how often: `0` once, `1`
# twice, `2` four times, and so on. The letter is sent back when that is done.
obey:
        call    receive
        mov     ebx, eax
        call    receive
        lea     ecx, [rax - '0']
        mov     esi, 1
        shl     rsi, cl
        mov     edi, COUNTER
        cmp     bl, 'c'
        je      compute
        cmp     bl, 'i'
        je      identify
        cmp     bl, 'p'
        je      put
        mov     edi, PAGE
        cmp     bl, 'm'
        je      move
done:
        mov     eax, ebx
        call    send
        jmp     obey

# Five instructions, a load and a store among them.
compute:
        mov     rax, [rdi]
        add     rax, rsi
        mov     [rdi], rax
        dec     rsi
        jnz     compute
        jmp     done

# CPUID, which a hypervisor answers itself.
identify:
        push    rbx
1:      xor     eax, eax
        cpuid
        dec     rsi
        jnz     1b
        pop     rbx
        jmp     done

# A write to a port, which only QEMU can take.
put:
        out     POST_CODE, al
        dec     rsi
        jnz     put
        jmp     done

# A page that moves in physical memory: its entry is written, its translation dropped, and the page read.
move:
        xor     dword ptr [LEVEL_2 + 8], PAGE
        invlpg  [rdi]
        mov     rax, [rdi]
        dec     rsi
        jnz     move
        jmp     done

# Waits for a byte, and returns it in EAX. Between two looks it leaves QEMU the time to take the byte in: TCG, while it
# answers a look, keeps the rest of QEMU waiting.
receive:
        mov     edx, UART + 5
1:      mov     ecx, 1000
2:      dec     ecx
        jnz     2b
        in      al, dx
        test    al, RECEIVED
        jz      1b
        mov     dl, UART & 0xff
        in      al, dx
        movzx   eax, al
        ret

# Sends AL as soon as the UART takes it.
send:
        mov     ah, al
        mov     edx, UART + 5
1:      in      al, dx
        test    al, SENT
        jz      1b
        mov     al, ah
        mov     dl, UART & 0xff
        out     dx, al
        ret

        .balign 8
segments:
        .quad   0
        .quad   0x00209b0000000000      # 64-bit code.
segments_pointer:
        .word   segments_pointer - segments - 1
        .long   segments
end:

        # Where every x86 processor begins, 16 bytes below 4 GiB.
        .org    SIZE - 16
        .code16
        .byte   0xea                    # A far jump, to where the ROM is in the first MiB, too.
        .word   ROM_OFFSET, ROM_SEGMENT
        .org    SIZE
