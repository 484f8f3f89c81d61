namespace Cbd.Blocks;

/// <summary>What a comparison of two identities of disks says.</summary>
internal enum DiskComparison
{
    /// <summary>Something contradicts: these are two disks.</summary>
    Different = 0,

    /// <summary>Nothing contradicts, and nothing proves it: an operator has to say whether it is one disk.</summary>
    CannotTell,

    /// <summary>It is one disk.</summary>
    Same,
}
