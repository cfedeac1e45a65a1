# A guest in one boot sector that has a screen, a keyboard and a mouse: it shows what a test can know beforehand, and tells on
# the first serial port every byte that keyboard and mouse send.
#
# Text mode, 80 columns, 25 lines:
#   line 0     `ratite screen guest` in white on blue, at column 3
#   lines 2-9  all 256 characters, 32 a line
#   line 12    `login: ` and then the cursor
# Some keys change the screen; each is told like all others, and then an `!` when the screen is ready:
#   F1 the same again · F2 40 columns · F3 50 lines of 8 rows · F4 mode 13h, pixel x,y in colour x/8+y/8*5, modulo 16
#   F5 one more character at line 15, column 0 · F6 the title on 640x480 pixels, drawn by the BIOS with its glyphs
# What it says: `ready`, then ` kXX` for a byte of the keyboard and ` mXX` for one of the mouse, in hexadecimal.
#
#   as --32 -o screen.o screen.s
#   ld -m elf_i386 -Ttext 0x7c00 --oformat binary -o screen.bin screen.o

        .intel_syntax noprefix
        .code16
        .globl _start
_start:
        cli
        cld
        xor     ax, ax
        mov     ds, ax
        mov     ss, ax
        mov     sp, 0x7000
        call    text_80

        # The mouse: enabled at the controller, then told to send what happens to it.
        mov     al, 0xa8
        out     0x64, al
        call    writable
        mov     al, 0xd4
        out     0x64, al
        call    writable
        mov     al, 0xf4
        out     0x60, al
1:      call    received                # Its acknowledgement, and what was typed before.
        test    ah, 0x20
        jz      1b

        mov     si, offset ready
2:      lodsb
        test    al, al
        jz      read
        call    say
        jmp     2b

# Tells what arrives, and obeys it.
read:
        call    received
        mov     bl, al
        mov     al, ' '
        call    say
        mov     al, 'k'
        test    ah, 0x20
        jz      1f
        mov     al, 'm'
1:      call    say
        push    ax
        mov     al, bl
        shr     al, 4
        call    digit
        mov     al, bl
        and     al, 15
        call    digit
        pop     ax
        cmp     al, 'k'
        jne     read
        sub     bl, 0x3b                # F1, pressed.
        cmp     bl, 6
        jae     read
        movzx   bx, bl
        shl     bx, 1
        call    word ptr [screens + bx]
        mov     al, '!'
        call    say
        jmp     read

screens: .word  text_80, text_40, text_50, colours, one_more, drawn

text_80:
        mov     ax, 3
        int     0x10
        cli
        call    show
        mov     dx, 0x0c07              # The cursor, behind `login: `.
        jmp     place

text_50:
        mov     ax, 3
        int     0x10
        mov     ax, 0x1112
        xor     bl, bl
        int     0x10
        cli
        jmp     show

text_40:
        mov     ax, 1
        int     0x10
        cli
        mov     ax, 0xb800
        mov     es, ax
        xor     di, di
        mov     si, offset title
        mov     ah, 0x1f
        call    write
        mov     dx, 0x1800
place:
        mov     ah, 2
        xor     bh, bh
        int     0x10
        cli
        ret

show:
        mov     ax, 0xb800
        mov     es, ax
        mov     di, 6
        mov     si, offset title
        mov     ah, 0x1f
        call    write
        mov     di, 12 * 160
        mov     si, offset login
        mov     ah, 7
        call    write
        mov     di, 2 * 160
        xor     al, al
1:      stosw
        inc     al
        jz      2f
        test    al, 31
        jnz     1b
        add     di, 160 - 64
        jmp     1b
2:      ret

one_more:
        mov     ax, 0xb800
        mov     es, ax
        mov     di, 15 * 160
        mov     ax, 0x0700 + 'X'
        stosw
        ret

drawn:
        mov     ax, 0x12
        int     0x10
        mov     si, offset title
1:      lodsb
        mov     bx, 14                  # Yellow.
        mov     ah, 0x0e
        test    al, al
        jz      2f
        int     0x10
        jmp     1b
2:      cli
        ret

colours:
        mov     ax, 0x13
        int     0x10
        cli
        mov     ax, 0xa000
        mov     es, ax
        xor     di, di
        xor     dx, dx                  # The row.
1:      xor     cx, cx                  # The column.
2:      mov     bx, dx
        shr     bx, 3
        imul    bx, bx, 5
        mov     ax, cx
        shr     ax, 3
        add     ax, bx
        and     al, 15
        stosb
        inc     cx
        cmp     cx, 320
        jb      2b
        inc     dx
        cmp     dx, 200
        jb      1b
        ret

# Writes the string at SI to the screen at ES:DI, in the colours of AH.
write:
        lodsb
        test    al, al
        jz      1f
        stosw
        jmp     write
1:      ret

# Waits for a byte of keyboard or mouse: AL, and the status that came before it in AH.
received:
        in      al, 0x64
        test    al, 1
        jz      received
        mov     ah, al
        in      al, 0x60
        ret

# Waits until the keyboard controller takes a byte.
writable:
        in      al, 0x64
        test    al, 2
        jnz     writable
        ret

# Says a hexadecimal digit, or the character in AL; DX is lost.
digit:
        add     al, '0'
        cmp     al, '9'
        jbe     say
        add     al, 'a' - '9' - 1
say:
        push    ax
        mov     dx, 0x3fd
1:      in      al, dx
        test    al, 0x20
        jz      1b
        pop     ax
        mov     dx, 0x3f8
        out     dx, al
        ret

title:  .asciz  "ratite screen guest"
login:  .asciz  "login: "
ready:  .asciz  "ready"

        .org    510
        .word   0xaa55
