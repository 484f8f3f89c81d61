namespace Cbd.Protocol.Hosts;

/// <summary>On whose word a host is cleared.</summary>
internal enum ClearAuthority
{
    /// <summary>Only with proof of death.</summary>
    Proof = 0,

    /// <summary>An operator wants it gone, but nobody vouches for its death: what it had is quarantined.</summary>
    Forced = 1,

    /// <summary>An operator vouches that its machine is off or cut off: as good as proof.</summary>
    Fenced = 2,

    /// <summary>The host itself, when it leaves: everything of it in this process has stopped.</summary>
    Owner = 3,
}

/// <summary>What a step of clearing came to.</summary>
internal enum ClearResult
{
    /// <summary>Something still drains, or is not decided yet: call it again after a beat.</summary>
    Again = 0,

    /// <summary>The entry is free; nothing of the host is left but what <see cref="Clearing{TMemory, TPolicy}.CountQuarantined"/> counts.</summary>
    Cleared = 1,

    /// <summary>The entry and what it had are quarantined.</summary>
    Quarantined = 2,

    /// <summary>Nothing was done: this authority does not allow it (no proof of death, or it is alive).</summary>
    NotAllowed = 3,
}
