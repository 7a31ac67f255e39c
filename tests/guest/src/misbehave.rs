//! Scenarios of a guest that fails or does harm, and what the runner does with its words.

use std::hint::black_box;

use crate::{Answer, Args, Failure, number, store};

const MIB: usize = 1 << 20;

pub(crate) fn trap(_: Args<'_>) -> Answer {
    std::process::abort()
}

pub(crate) fn panic(_: Args<'_>) -> Answer {
    panic!("as asked")
}

pub(crate) fn spin(_: Args<'_>) -> Answer {
    loop {
        black_box(());
    }
}

pub(crate) fn save_and_spin(args: Args<'_>) -> Answer {
    store::save(args)?;
    spin(args)
}

pub(crate) fn grow(_: Args<'_>) -> Answer {
    // Kept outside a growing list, which would itself need room to say how much it took.
    let mut taken = 0;
    loop {
        let mut block: Vec<u8> = Vec::new();
        if block.try_reserve_exact(MIB).is_err() {
            return Ok(format!("refused after {taken} MiB"));
        }
        block.resize(MIB, 1);
        black_box(block.leak());
        taken += 1;
    }
}

pub(crate) fn deep_recursion(_: Args<'_>) -> Answer {
    Ok(descend(u64::MAX).to_string())
}

/// Saves static data after a recursion.
pub(crate) fn save_deep(args: Args<'_>) -> Answer {
    static KNOWN: &str = "what the agent knows";

    let [name, levels] = args else {
        return Err(Failure::Usage);
    };
    black_box(descend(number(levels)?));
    store::save(&[name, black_box(KNOWN)])
}

#[inline(never)]
fn descend(levels: u64) -> u64 {
    // Each level keeps something that is used after the next, so that none can take another's
    // place.
    let here = black_box([levels; 16]);
    if levels == 0 {
        0
    } else {
        descend(levels - 1).wrapping_add(here[0])
    }
}

pub(crate) fn print(args: Args<'_>) -> Answer {
    println!("out {}", args.join(" "));
    eprintln!("err {}", args.join(" "));
    Ok("printed".into())
}

pub(crate) fn error(args: Args<'_>) -> Answer {
    Err(Failure::Text(args.join(" ")))
}

pub(crate) fn echo(args: Args<'_>) -> Answer {
    Ok(args.join("\n"))
}
